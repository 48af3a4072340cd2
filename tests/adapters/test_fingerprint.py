import torch

from llama_adapter.adapters.fingerprint import differences, fingerprint
from tests.adapters import tiny


def test_the_same_model_in_another_precision_does_not_differ():
    saved = fingerprint(tiny.llama())
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        assert differences(saved, tiny.llama().to(dtype)) == []


def test_sizes_are_named():
    saved = fingerprint(tiny.llama())
    found = differences(saved, tiny.llama(num_hidden_layers=3, hidden_size=32))
    assert "num_hidden_layers was 4, is 3" in found
    assert "hidden_size was 64, is 32" in found


def test_models_without_readable_embeddings_have_sizes_only():
    assert fingerprint(torch.nn.Linear(2, 2)) == {}
    assert "embedding_sample" not in fingerprint(tiny.llama().to("meta"))
