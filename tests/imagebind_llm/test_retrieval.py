"""Scores between all pairs of modalities."""

import pytest
import torch

from imagebind_llm.processing.processor import ImageBindProcessor
from imagebind_llm.retrieval import retrieve, similarities
from tests.imagebind_llm.imagebind.test_model import tiny_model
from tests.imagebind_llm.processing.test_processor import write_files


def test_products_of_embeddings_are_the_logits():
    images, texts = torch.eye(3), 100 * torch.eye(3)[[2, 0]]
    found = similarities({"vision": images, "text": texts})
    assert set(found) == {("vision", "text"), ("text", "vision")}
    assert found["text", "vision"].best == [2, 0]
    torch.testing.assert_close(found["vision", "text"].cosine, images @ torch.eye(3)[[2, 0]].T)
    torch.testing.assert_close(found["vision", "text"].probability, (images @ texts.T).softmax(-1))


def test_one_modality_is_compared_with_itself():
    found = similarities({"audio": torch.eye(2) * 20})
    assert found["audio", "audio"].best == [0, 1]


def test_files_of_all_modalities(tmp_path):
    found = retrieve(tiny_model(), ImageBindProcessor(), write_files(tmp_path))
    assert len(found) == 7 * 6
    scores = found["vision", "text"]
    assert scores.cosine.shape == (2, 2)
    torch.testing.assert_close(scores.probability.sum(1), torch.ones(2))
    with pytest.raises(KeyError):
        found["vision", "vision"]
