"""Units of boxes: what cannot be right is refused or said, what can is not."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from llama_adapter.evaluation.box_units import Compared, doubts, iou, reference_problem, to_pixels

SIZE = (480.0, 640.0)
BOX = (100.0, 120.0, 300.0, 360.0)
UNITS = ("square", "square_end", "image", "thousandths", "pixels", "pixels_xywh")


def written(box, size, coordinates):
    """The numbers that mean a box of pixels."""
    height, width = size
    if coordinates == "pixels_xywh":
        return (box[0], box[1], box[2] - box[0], box[3] - box[1])
    if coordinates == "pixels":
        return box
    if coordinates in ("square", "square_end"):
        side = max(size)
        right, down = ((side - width) // 2, (side - height) // 2) if coordinates == "square" else (0, 0)
        return tuple((value + (right, down)[n % 2]) / side for n, value in enumerate(box))
    unit = 1000 if coordinates == "thousandths" else 1
    return tuple(value * unit / (width, height)[n % 2] for n, value in enumerate(box))


SIDES = st.floats(0, 1)


@given(
    st.tuples(SIDES, SIDES, SIDES, SIDES), st.integers(50, 900), st.integers(50, 900), st.sampled_from(UNITS)
)
def test_boxes_in_their_own_unit_raise_no_doubt(shares, height, width, unit):
    left, right = sorted((shares[0] * width, shares[2] * width))
    top, bottom = sorted((shares[1] * height, shares[3] * height))
    assume(right - left > 10)
    assume(bottom - top > 10)
    box, size = (left, top, right, bottom), (float(height), float(width))
    numbers = written(box, size, unit)
    assert to_pixels(numbers, height, width, unit) == pytest.approx(box, abs=1e-6)
    assert reference_problem(box, size) == ""
    assert doubts([Compared(numbers, box, size)], unit, 0.5) == []


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("taken", ["square", "image", "thousandths", "pixels", "pixels_xywh"])
def test_boxes_in_another_unit_are_said_with_the_unit_that_fits(unit, taken):
    pairs = [Compared(written(box, SIZE, unit), box, SIZE) for box in (BOX, (20.0, 30.0, 90.0, 100.0))]
    right = sum(pair.overlap(taken) >= 0.5 for pair in pairs)
    notes = doubts(pairs, taken, 0.5)
    if unit == taken:
        assert notes == []
    elif right == 0:
        assert "Is --coordinates" in notes[0]
        assert "of them would be right, not 0." in notes[0]


@pytest.mark.parametrize(
    ("box", "why"),
    [
        ((300, 120, 100, 360), "comes before the other"),
        ((10, 20, 900, 100), "outside of the picture"),
        ((-40, 20, 90, 100), "outside of the picture"),
        ((0.1, 0.2, 0.5, 0.9), "smaller than a pixel, as shares are"),
        ((0, 0, 641, 480.5), ""),
    ],
)
def test_references_that_cannot_be_pixels(box, why):
    found = reference_problem(box, SIZE)
    assert why in found
    assert bool(why) == bool(found)


def test_without_boxes_there_is_no_doubt():
    assert doubts([], "square", 0.5) == []
    assert iou((0, 0, 1, 1), (0, 0, 1, 1)) == 1
