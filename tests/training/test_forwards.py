"""A replaced forward runs inside hooks, leaves names alone and goes away."""

import torch
from torch import nn

from llama_adapter.training.forwards import replace_forward


def test_replacements_nest_and_go_away():
    layer, seen = nn.Linear(2, 2, bias=False), []
    layer.register_forward_hook(lambda module, inputs, output: seen.append(output))
    before, keys = layer(torch.ones(1, 2)), set(layer.state_dict())
    inner = replace_forward(layer, lambda old: lambda x: old(x) + 1)
    outer = replace_forward(layer, lambda old: lambda x: old(x) * 2)
    assert torch.equal(layer(torch.ones(1, 2)), (before + 1) * 2)
    assert torch.equal(seen[-1], (before + 1) * 2)
    assert set(layer.state_dict()) == keys
    outer()
    assert torch.equal(layer(torch.ones(1, 2)), before + 1)
    inner()
    assert "forward" not in layer.__dict__
    assert torch.equal(layer(torch.ones(1, 2)), before)
