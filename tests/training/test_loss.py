"""The loss over labelled positions against plain cross-entropy, for any labels and any model tail."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import Gemma2Config, Gemma2ForCausalLM, GPT2Config, GPT2LMHeadModel

from llama_adapter.training.loss import LabelledPositions, labelled_count

VOCABULARY = 11

labels_of_a_batch = st.integers(1, 4).flatmap(
    lambda width: st.lists(
        st.lists(st.sampled_from([-100, 0, 3, 10]), min_size=width + 1, max_size=width + 1),
        min_size=1,
        max_size=4,
    )
)


class Tail(nn.Module):
    """A head followed by what a model may do to its logits: scale and soft cap."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(5, VOCABULARY, bias=False)

    def forward(self, hidden):
        return torch.tanh(self.head(hidden) * 0.7 / 2.0) * 2.0


@settings(max_examples=80, deadline=None)
@given(labels=labels_of_a_batch)
def test_value_and_gradient_equal_full_cross_entropy(labels):
    labels = torch.tensor(labels)
    tail = Tail()
    torch.manual_seed(1)
    hidden = torch.randn(*labels.shape, 5, requires_grad=True)
    positions = LabelledPositions(labels)
    with positions.narrowed(tail.head):
        narrow = positions.losses(tail(hidden))
    full = cross_entropy(
        tail(hidden)[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="none", ignore_index=-100
    )
    assert len(narrow) == labelled_count(labels) == int((labels[:, 1:] != -100).sum())
    torch.testing.assert_close(narrow.sum(), full.sum())
    of_narrow = torch.autograd.grad(narrow.sum(), [hidden, tail.head.weight])
    of_full = torch.autograd.grad(full.sum(), [hidden, tail.head.weight])
    for one, other in zip(of_narrow, of_full, strict=True):
        torch.testing.assert_close(one, other)


@settings(max_examples=40, deadline=None)
@given(labels=labels_of_a_batch)
def test_rows_add_up(labels):
    labels = torch.tensor(labels)
    positions = LabelledPositions(labels)
    with positions.narrowed(None):
        losses = positions.losses(torch.randn(*labels.shape, VOCABULARY))
    summed, counts = positions.per_row(losses)
    assert counts.tolist() == (labels[:, 1:] != -100).sum(dim=1).tolist()
    torch.testing.assert_close(summed.sum(), losses.sum())
    assert all(
        value == 0 for value, count in zip(summed.tolist(), counts.tolist(), strict=True) if count == 0
    )


def test_the_head_sees_labelled_positions_only_and_is_left_as_it_was():
    tail, seen = Tail(), []
    tail.head.register_forward_hook(lambda module, inputs, output: seen.append(tuple(inputs[0].shape)))
    positions = LabelledPositions(torch.tensor([[-100, -100, 4, 5], [-100, 1, -100, -100]]))
    with positions.narrowed(tail.head):
        tail(torch.randn(2, 4, 5))
    tail(torch.randn(2, 4, 5))
    assert seen == [(1, 3, 5), (2, 4, 5)]


def test_the_hook_goes_away_after_an_error():
    tail = Tail()
    with (
        pytest.raises(RuntimeError, match="boom"),
        LabelledPositions(torch.tensor([[1, 2]])).narrowed(tail.head),
    ):
        raise RuntimeError("boom")
    assert not tail.head._forward_pre_hooks


def test_a_head_that_gets_other_positions_is_left_alone():
    tail = Tail()
    positions = LabelledPositions(torch.tensor([[-100, 4, 5]]))
    with positions.narrowed(tail.head):
        assert tail(torch.randn(1, 7, 5)).shape == (1, 7, VOCABULARY)


@pytest.mark.parametrize("family", ["gemma2", "gpt2"])
def test_models_with_soft_caps_and_tied_heads(family):
    torch.manual_seed(0)
    if family == "gemma2":
        shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
        config = Gemma2Config(
            vocab_size=32, num_key_value_heads=1, head_dim=8, final_logit_softcapping=0.5, **shape
        )
        model = Gemma2ForCausalLM(config)
    else:
        model = GPT2LMHeadModel(GPT2Config(vocab_size=32, n_embd=16, n_layer=2, n_head=2, n_positions=32))
    model.eval()
    ids = torch.randint(1, 32, (3, 6))
    labels = ids.clone()
    labels[:, :3] = -100
    positions = LabelledPositions(labels)
    with positions.narrowed(model.get_output_embeddings()):
        logits = model(input_ids=ids).logits
    assert logits.shape == (1, 9, 32)
    assert positions.losses(logits).mean().item() == pytest.approx(
        model(input_ids=ids, labels=labels).loss.item(), rel=1e-6
    )


def test_label_smoothing_is_the_textbook_mixture():
    positions = LabelledPositions(torch.tensor([[-100, 2]]))
    logits = torch.randn(1, 2, VOCABULARY)
    with positions.narrowed(None):
        smooth = positions.losses(logits, 0.1)
    log_probabilities = logits[0, 0].log_softmax(-1)
    expected = -0.9 * log_probabilities[2] - 0.1 * log_probabilities.mean()
    torch.testing.assert_close(smooth[0], expected)
