"""Weighted sums of embeddings."""

import pytest
import torch

from imagebind_llm.mixing import mix
from llama_adapter import UserError
from tests.imagebind_llm.tiny import golden


def test_the_published_mix():
    tensors = golden("imagebind_llm")
    embeddings = [tensors[f"golden.inputs.embedding.{name}"] for name in ("Image", "Audio", "Point")]
    found = mix(embeddings, tensors["golden.inputs.modality_weights"].tolist())
    torch.testing.assert_close(found, tensors["golden.outputs.mixed_before_cache"], atol=1e-6, rtol=0)
    alone = mix(embeddings[:1], [1.0])
    torch.testing.assert_close(alone, tensors["golden.outputs.train_image_only.embedding"], atol=1e-6, rtol=0)


def test_each_record_has_weights_of_its_own():
    one, other = torch.randn(2, 8), torch.randn(2, 8)
    found = mix([one, other], [torch.tensor([1.0, 3.0]), torch.tensor([0.0, -1.0])])
    for row, weights in enumerate([[1.0, 0.0], [3.0, -1.0]]):
        torch.testing.assert_close(found[row : row + 1], mix([one[row, None], other[row, None]], weights))


def test_weights_that_do_not_fit():
    with pytest.raises(UserError, match="There are 2 inputs and 1 weights. Give"):
        mix([torch.ones(1, 2)] * 2, [1.0])
    with pytest.raises(UserError, match=r"weights \[1.0, -1.0\] of a record add up to 0. Change"):
        mix([torch.ones(1, 2)] * 2, [1.0, -1.0])
