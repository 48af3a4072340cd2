"""Labelled positions: where they are, what the loss of given logits is, how rows add up."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.nn.functional import cross_entropy

from llama_adapter.training.loss import LabelledPositions, labelled_count, token_losses

VOCABULARY = 11

labels_of_a_batch = st.integers(1, 4).flatmap(
    lambda width: st.lists(
        st.lists(st.sampled_from([-100, 0, 3, 10]), min_size=width + 1, max_size=width + 1),
        min_size=1,
        max_size=4,
    )
)


@settings(max_examples=80, deadline=None)
@given(labels=labels_of_a_batch)
def test_losses_of_all_logits_equal_the_textbook(labels):
    labels = torch.tensor(labels)
    logits = torch.randn(*labels.shape, VOCABULARY)
    losses = LabelledPositions(labels).losses(logits)
    textbook = cross_entropy(
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="none", ignore_index=-100
    )
    assert len(losses) == labelled_count(labels) == int((labels[:, 1:] != -100).sum())
    torch.testing.assert_close(losses, textbook[labels[:, 1:].flatten() != -100])


@settings(max_examples=40, deadline=None)
@given(labels=labels_of_a_batch)
def test_rows_add_up(labels):
    labels = torch.tensor(labels)
    positions = LabelledPositions(labels)
    losses = positions.losses(torch.randn(*labels.shape, VOCABULARY))
    summed, counts = positions.per_row(losses)
    assert counts.tolist() == (labels[:, 1:] != -100).sum(dim=1).tolist()
    torch.testing.assert_close(summed.sum(), losses.sum())
    assert all(
        value == 0 for value, count in zip(summed.tolist(), counts.tolist(), strict=True) if count == 0
    )


def test_selected_are_the_positions_before_the_labels():
    labels = torch.tensor([[-100, -100, 4, 5], [7, 1, -100, -100]])
    positions = LabelledPositions(labels)
    grid = torch.arange(8).view(2, 4, 1)
    assert positions.select(grid)[:, 0].tolist() == [1, 2, 4]
    assert positions.targets.tolist() == [4, 5, 1]
    assert positions.rows.tolist() == [0, 0, 1]


def test_real_positions_select_from_tensors_without_content():
    positions = LabelledPositions(torch.tensor([[-100, -100, 4, 5], [7, 1, -100, -100]]))
    with FakeTensorMode() as mode:
        fake = positions.mapped(mode.from_tensor)
        selected = fake.select(torch.empty(2, 4, 6))
    assert isinstance(selected, FakeTensor)
    assert selected.shape == (3, 6)
    assert fake.shape == positions.shape
    assert not isinstance(positions.index, FakeTensor)


def test_label_smoothing_is_the_textbook_mixture():
    logits = torch.randn(1, VOCABULARY)
    smooth = token_losses(logits, torch.tensor([2]), 0.1)
    log_probabilities = logits[0].log_softmax(-1)
    expected = -0.9 * log_probabilities[2] - 0.1 * log_probabilities.mean()
    torch.testing.assert_close(smooth[0], expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_are_in_fp32(dtype):
    logits = torch.randn(3, VOCABULARY, dtype=dtype)
    losses = token_losses(logits, torch.tensor([1, 2, 3]))
    assert losses.dtype == torch.float32
    assert torch.equal(losses, token_losses(logits.float(), torch.tensor([1, 2, 3])))
