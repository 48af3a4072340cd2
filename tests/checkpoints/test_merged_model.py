"""What is written is checked by loading it."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from llama_adapter import ZeroInitConfig
from llama_adapter.checkpoints.merged_model import _parts, _reload
from llama_adapter.errors import UserError
from tests.tiny import tiny_llama


def test_weights_that_loading_would_lose_are_noticed(tmp_path):
    tiny_llama().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["model.layers.0.self_attn.q_proj.bias"] = torch.ones(32)
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="does not load 1 of the merged weights.*q_proj.bias"):
        _reload(tmp_path, torch.float32)


def test_parts_are_named():
    config = ZeroInitConfig(prompt_length=0, deltas=["input_scale", "bias"], norms=True)
    assert _parts(config) == "input scale, bias, tuned norms"
