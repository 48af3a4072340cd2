"""A pass that is repeated from the same state draws the same numbers."""

import torch

from llama_adapter.training.random_state import RandomState


def test_what_follows_is_drawn_again():
    state = RandomState.now(torch.zeros(1), None, "no tensor")
    first = torch.rand(5)
    assert not torch.equal(torch.rand(5), first)
    state.restore()
    assert torch.equal(torch.rand(5), first)


def test_a_state_can_be_restored_twice():
    state = RandomState.now()
    draws = []
    for _ in range(2):
        state.restore()
        draws.append(torch.rand(3))
    assert torch.equal(*draws)
