"""Prompt length and adapted layers are read off a file's shapes and gates."""

import pytest
import torch

from llama_adapter.checkpoints.adapter_options import cut_prompts, find_prompt_length
from llama_adapter.errors import UserError


def file(rows, layers, opened, gates=None):
    """Stacked prompts, and gates that are non-zero in the top-most ``opened`` layers."""
    tensors = {"adapter_query.weight": torch.randn(rows, 4)}
    for layer in range(layers - (gates or layers), layers):
        value = 1.0 if layer >= layers - opened else 0.0
        tensors[f"layers.{layer}.attention.gate"] = torch.full((1, 2, 1, 1), value)
    return tensors


def test_the_published_v1_file_says_ten_prompts_in_thirty_layers():
    assert find_prompt_length(file(300, 32, opened=30), 32, None) == 10


def test_gates_that_exist_only_where_there_are_prompts_decide():
    assert find_prompt_length(file(12, 4, opened=3, gates=3), 4, None) == 4


def test_visual_queries_are_as_many_as_prompts():
    tensors = file(12, 4, opened=4) | {"visual_query.weight": torch.zeros(6, 8)}
    assert find_prompt_length(tensors, 4, None) == 6


def test_the_user_decides_where_the_file_leaves_it_open():
    tensors = file(12, 4, opened=4)
    assert find_prompt_length(tensors, 4, 3) == 3
    with pytest.raises(UserError, match=r"Set `--prompt_length` to one of \[3, 4, 6, 12\]"):
        find_prompt_length(file(12, 4, opened=0), 4, None)
    with pytest.raises(UserError, match="do not fit 5 prompts"):
        find_prompt_length(tensors, 4, 5)


def test_a_file_without_prompts_has_length_zero():
    assert find_prompt_length({}, 4, None) == 0


def test_prompts_are_cut_from_the_bottom_layer_up():
    tensors = file(6, 4, opened=3)
    cut = cut_prompts(tensors, 2, 4)
    assert torch.equal(cut["adapter_query.weight[1]"], tensors["adapter_query.weight"][:2])
    assert torch.equal(cut["adapter_query.weight[3]"], tensors["adapter_query.weight"][4:])
    assert "adapter_query.weight" not in cut
