"""Row orders under rotary embedding."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llama_adapter.checkpoints.rotary import halves_to_pairs, pairs_to_halves
from llama_adapter.errors import UserError


@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 2))
def test_both_ways_are_inverses(heads, half, extra):
    rows = torch.randn(2 * heads * half, *[3] * extra)
    assert torch.equal(halves_to_pairs(pairs_to_halves(rows, heads), heads), rows)
    assert torch.equal(pairs_to_halves(halves_to_pairs(rows, heads), heads), rows)


def test_even_rows_of_a_head_come_first():
    assert pairs_to_halves(torch.arange(8), 2).tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_scores_are_those_of_the_original_rotation():
    """Rotating neighbours in one order equals rotating halves in the other."""
    rows, angle = torch.randn(6), torch.randn(3)
    turned = torch.view_as_real(torch.view_as_complex(rows.view(3, 2)) * torch.polar(torch.ones(3), angle))
    first, second = pairs_to_halves(rows, 1).chunk(2)
    halves = torch.cat(
        [first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin()]
    )
    torch.testing.assert_close(pairs_to_halves(turned.flatten(), 1), halves)


def test_half_a_head_is_refused():
    with pytest.raises(UserError, match="6 rows are not 4 heads"):
        pairs_to_halves(torch.zeros(6), 4)
