"""Chunked losses against plain cross-entropy: values, gradients under any weighting, memory, precision."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.nn.functional import cross_entropy

from llama_adapter.training.chunked import chunked_losses
from tests.live_bytes import LiveBytes

HIDDEN = 5


def problem(count, vocabulary, seed=0, scale=1.0):
    torch.manual_seed(seed)
    head = nn.Linear(HIDDEN, vocabulary)
    hidden = (scale * torch.randn(count, HIDDEN)).requires_grad_()
    return head, hidden, torch.randint(0, vocabulary, (count,))


def capped(head):
    return lambda hidden: torch.tanh(head(hidden) * 0.7 / 2.0) * 2.0


@settings(max_examples=120, deadline=None)
@given(
    count=st.integers(0, 9),
    vocabulary=st.integers(2, 30),
    chunk=st.integers(1, 12),
    smoothing=st.sampled_from([0.0, 0.1, 0.5]),
    trains=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_equal_to_full_cross_entropy_under_any_weighting(count, vocabulary, chunk, smoothing, trains, seed):
    head, hidden, targets = problem(count, vocabulary, seed)
    head.requires_grad_(trains)
    logits_of, weights = capped(head), torch.randn(count)
    losses = chunked_losses(hidden, targets, logits_of, chunk, smoothing, trains)
    full = cross_entropy(logits_of(hidden), targets, reduction="none", label_smoothing=smoothing)
    torch.testing.assert_close(losses, full, rtol=1e-6, atol=1e-6)
    wanted = [hidden, *(head.parameters() if trains else [])]
    ours = torch.autograd.grad(losses @ weights, wanted, allow_unused=count == 0)
    theirs = torch.autograd.grad(full @ weights, wanted, allow_unused=count == 0)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_the_backward_pass_can_be_taken_twice():
    head, hidden, targets = problem(4, 7)
    head.requires_grad_(False)
    loss = chunked_losses(hidden, targets, head, 2).sum()
    first = torch.autograd.grad(loss, hidden, retain_graph=True)[0]
    assert torch.equal(first, torch.autograd.grad(2 * loss, hidden)[0] / 2)


@pytest.mark.parametrize("trains", [False, True], ids=["frozen head", "training head"])
def test_no_more_logits_than_those_of_a_chunk_are_ever_there(trains):
    count, vocabulary, chunk = 64, 20_000, 4
    head, hidden, targets = problem(count, vocabulary)
    head.requires_grad_(trains)
    torch.autograd.grad(chunked_losses(hidden, targets, head, chunk, 0.0, trains).sum(), hidden)  # warm up
    with LiveBytes(*head.parameters(), hidden, targets) as tracker:
        losses = chunked_losses(hidden, targets, head, chunk, 0.0, trains)
        kept = tracker.live
        losses.sum().backward()
    logits = chunk * vocabulary * 4
    weights = vocabulary * (HIDDEN + 1) * 4  # of a head that trains: its gradient
    assert tracker.largest <= max(logits, trains * weights)
    assert tracker.peak <= 3 * logits + trains * 3 * weights
    assert kept < logits  # nothing of the vocabulary's width waits for the backward pass
    with LiveBytes(*head.parameters(), hidden, targets) as plain:
        cross_entropy(head(hidden), targets).backward()
    assert plain.largest == count * vocabulary * 4


def test_evaluation_computes_no_gradient():
    head, hidden, targets = problem(6, 9)
    modes = []

    def logits_of(rows):
        modes.append((torch.is_grad_enabled(), rows.requires_grad))
        return head(rows)

    with torch.no_grad():
        losses = chunked_losses(hidden, targets, logits_of, 4)
    assert not losses.requires_grad
    assert modes == [(False, True)] * 2  # no detached copy, no graph
    assert not chunked_losses(hidden.detach(), targets, head.requires_grad_(False), 4).requires_grad


@pytest.mark.parametrize("trains", [False, True], ids=["frozen head", "training head"])
def test_tensors_without_content(trains):
    with FakeTensorMode():
        head, hidden, targets = problem(7, 30)
        head.requires_grad_(trains)
        losses = chunked_losses(hidden, targets, head, 3, 0.1, trains)
        losses.mean().backward()
    assert isinstance(losses, FakeTensor)
    assert losses.shape == (7,)
    assert hidden.grad.shape == hidden.shape
    assert (head.weight.grad is not None) == trains


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_as_close_to_fp32_as_plain_autograd(dtype):
    count, vocabulary = 16, 500
    head, hidden, targets = problem(count, vocabulary)
    head.requires_grad_(False)
    exact = torch.autograd.grad(cross_entropy(head(hidden), targets, reduction="sum"), hidden)[0]
    low, small = head.to(dtype), hidden.detach().to(dtype).requires_grad_()
    losses = chunked_losses(small, targets, low, 5)
    assert losses.dtype == torch.float32
    ours = torch.autograd.grad(losses.sum(), small)[0].float()
    plain = torch.autograd.grad(cross_entropy(low(small).float(), targets, reduction="sum"), small)[0].float()
    assert (ours - exact).abs().max() <= 1.1 * (plain - exact).abs().max()


def test_fp16_keeps_the_gradient_of_improbable_words():
    """With 60,000 words each probability is 1.7e-5, where fp16 has three bits left."""
    head, hidden, targets = problem(4, 60_000, scale=0.01)
    head.requires_grad_(False)
    exact = torch.autograd.grad(cross_entropy(head(hidden), targets, reduction="sum"), hidden)[0]
    low, small = head.half(), hidden.detach().half().requires_grad_()
    ours = torch.autograd.grad(chunked_losses(small, targets, low, 4).sum(), small)[0].float()
    torch.testing.assert_close(ours, exact, rtol=2e-3, atol=2e-3)


def test_bf16_autocast_computes_logits_in_bf16_and_gradients_in_the_states_precision():
    head, hidden, targets = problem(6, 9)
    head.requires_grad_(False)
    kinds = []

    def logits_of(rows):
        kinds.append(head(rows).dtype)
        return head(rows)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = chunked_losses(hidden, targets, logits_of, 4)
    gradient = torch.autograd.grad(losses.sum(), hidden)[0]
    exact = torch.autograd.grad(cross_entropy(head(hidden), targets, reduction="sum"), hidden)[0]
    assert set(kinds) == {torch.bfloat16}
    assert losses.dtype == gradient.dtype == torch.float32
    torch.testing.assert_close(gradient, exact, rtol=3e-2, atol=3e-2)
