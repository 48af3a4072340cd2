import math

import pytest

from llama_adapter.cli import main
from llama_adapter.limits import (
    INTERVAL,
    INTERVAL_OR_ZERO,
    SEED,
    above,
    at_least,
    below,
    between,
    is_finite,
    one_of,
    share,
)


@pytest.mark.parametrize(
    ("limit", "inside", "outside"),
    [
        (at_least(1), [1, 2**40], [0, -1]),
        (above(0), [1e-9, 3], [0, -1]),
        (between(0, 1), [0, 0.5, 1], [-0.1, 1.1]),
        (below(0, 1), [0, 0.99], [1, -0.1]),
        (one_of(["a", "b"]), ["a"], ["c", None]),
        (INTERVAL, [1, 500, 0.25], [0, -1, 1.5]),
        (INTERVAL_OR_ZERO, [0, 1, 0.25], [-1, 1.5]),
        (SEED, [0, 2**32 - 1], [-1, 2**32]),
    ],
)
def test_values_inside_hold_and_others_do_not(limit, inside, outside):
    assert all(limit.holds(value) for value in inside)
    assert not any(limit.holds(value) for value in outside)


def test_shares_and_finite_numbers():
    assert share(1)
    assert not share(0)
    assert is_finite(-(2**62))
    assert not any(is_finite(value) for value in (math.nan, math.inf, 2**63))


def test_help_says_the_range_and_shows_no_code(capsys):
    assert main(["demo", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "Annotated[int, 1 or more], default: 120" in shown
    assert "function" not in shown
    assert "Limit(" not in shown
