"""Attention to prompts is the published formula, whatever kernel computes it, with its gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from llama_adapter.adapters.prompt_attention import attend_to_prompts


def published_formula(query, keys, values, gate, scale):
    """Scores over prompts in a softmax of their own, probabilities times the gate, as the paper writes it."""
    return gate * (query @ keys.transpose(-1, -2) * scale).softmax(-1) @ values


@settings(max_examples=30, deadline=None)
@given(
    batch=st.integers(1, 3),
    groups=st.integers(1, 3),
    per_group=st.integers(1, 3),
    positions=st.integers(1, 5),
    length=st.integers(1, 6),
    seed=st.integers(0, 99),
)
def test_folding_the_gate_into_values_is_the_published_formula(
    batch, groups, per_group, positions, length, seed
):
    generator = torch.Generator().manual_seed(seed)
    heads, size = groups * per_group, 8
    query = torch.randn(batch, heads, positions, size, generator=generator)
    keys, values = torch.randn(2, 1, groups, length, size, generator=generator)
    keys, values = (x.repeat_interleave(per_group, 1).expand(batch, -1, -1, -1) for x in (keys, values))
    gate = torch.tanh(torch.randn(heads, 1, 1, generator=generator))
    got = attend_to_prompts(query, keys, values * gate, scaling=0.3)
    torch.testing.assert_close(got, published_formula(query, keys, values, gate, 0.3))


def test_soft_cap_bounds_the_scores():
    query, keys, values = torch.randn(3, 1, 2, 4, 8).unbind()
    got = attend_to_prompts(query, keys, values, scaling=0.5, softcap=2.0)
    scores = 2.0 * torch.tanh(query @ keys.transpose(-1, -2) * 0.5 / 2.0)
    torch.testing.assert_close(got, scores.softmax(-1) @ values)
    torch.testing.assert_close(
        attend_to_prompts(query, keys, values, softcap=1e6),
        attend_to_prompts(query, keys, values),
        atol=1e-4,
        rtol=0,
    )


def operands(rows, dtype=torch.float64, positions=3):
    """Query as projections give it, heads inside; keys and values of each row, or of one for all."""
    query = torch.randn(2, positions, 4, 8, dtype=dtype).transpose(1, 2)
    keys, values = torch.randn(2, rows, 4, 5, 8, dtype=dtype).unbind()
    return [x.requires_grad_() for x in (query, keys, values)]


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("wanted", [(True, True, True), (True, False, False), (False, True, True)])
def test_gradients_are_those_of_the_formula(rows, wanted):
    inputs = [x.requires_grad_(want) for x, want in zip(operands(rows), wanted, strict=True)]
    assert torch.autograd.gradcheck(lambda *x: attend_to_prompts(*x, scaling=0.3), inputs)


def test_an_expanded_row_is_one_row():
    query, keys, values = operands(rows=1)
    expanded = [x.expand(2, -1, -1, -1) for x in (keys, values)]
    one, all_rows = attend_to_prompts(query, keys, values), attend_to_prompts(query, *expanded)
    assert torch.equal(one, all_rows)
    found = torch.autograd.grad(all_rows.square().sum(), (keys, values))
    torch.testing.assert_close(found, torch.autograd.grad(one.square().sum(), (keys, values)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_agrees_with_the_fused_kernel(dtype):
    inputs = operands(2, dtype, positions=17)
    got = attend_to_prompts(*inputs)
    expected = scaled_dot_product_attention(*inputs)
    tolerance = {"atol": 1e-5, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 3e-2, "rtol": 3e-2}
    torch.testing.assert_close(got, expected, **tolerance)
    grads, others = (torch.autograd.grad(x.float().square().sum(), inputs) for x in (got, expected))
    torch.testing.assert_close(grads, others, **{name: 4 * value for name, value in tolerance.items()})


def test_with_and_without_gradients_the_same_bits():
    inputs = operands(1, torch.float32)
    with torch.no_grad():
        without = attend_to_prompts(*inputs)
    assert torch.equal(attend_to_prompts(*inputs), without)


def test_autocast_reaches_the_backward_pass():
    inputs = operands(1, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = attend_to_prompts(*inputs)
    assert output.dtype == torch.bfloat16
    output.sum().backward()
    assert all(x.grad.dtype == torch.float32 for x in inputs)


def test_no_output_is_kept_for_the_backward_pass():
    query, keys, values = operands(1, torch.float32, positions=40)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
        attend_to_prompts(query, keys, values)
    assert sum(kept) == query.numel() + keys.numel() + values.numel() + 2 * 4 * 40 * 5
