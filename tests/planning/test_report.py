"""Numbers as people read them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_adapter.planning.report import duration, readable


@pytest.mark.parametrize(
    ("value", "base", "unit", "text"),
    [
        (0, 1000, "", "0"),
        (999, 1000, "", "999"),
        (1234, 1000, "", "1.23 K"),
        (12_345_678, 1000, "FLOP", "12.3 MFLOP"),
        (123_456_789_012, 1000, "FLOP", "123 GFLOP"),
        (1536, 1024, "B", "1.50 KiB"),
        (10 * 1024**3, 1024, "B", "10.0 GiB"),
        (None, 1024, "B", "not estimated"),
    ],
)
def test_readable(value, base, unit, text):
    assert readable(value, base, unit) == text


@given(st.integers(0, 10**20))
def test_readable_stays_close_to_the_value(value):
    number, _, prefix = readable(value).partition(" ")
    scale = 1000 ** ("", "K", "M", "G", "T", "P", "E").index(prefix)
    assert float(number) * scale == pytest.approx(value, rel=0.01)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.034, "0.034 s"),
        (42, "42 s"),
        (466, "7 min 46 s"),
        (7385, "2 h 03 min"),
        (300_000, "3.5 days"),
    ],
)
def test_duration(seconds, text):
    assert duration(seconds) == text
