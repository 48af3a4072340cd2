"""Boxes follow a picture through padding and views, and back; boxes in answers are found."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sphinx_ft.boxes import (
    Mark,
    find_marks,
    from_pixels,
    from_view,
    in_picture,
    to_picture,
    to_pixels,
    to_square,
    to_view,
    write,
)
from sphinx_ft.views import ViewConfig, place, useful_views

SHARE = st.floats(0, 1)
SIDE = st.integers(1, 3000)


CONFIGS = [
    ViewConfig(image_size=max(rows, columns, 1) * 56, rows=rows, columns=columns, padding=padding)
    for rows, columns in [(0, 0), (1, 1), (2, 2), (3, 3), (1, 2), (3, 1)]
    for padding in ("centred", "end")
]
GRIDS = st.sampled_from(CONFIGS)


@st.composite
def places(draw):
    xs, ys = sorted((draw(SHARE), draw(SHARE))), sorted((draw(SHARE), draw(SHARE)))
    return draw(st.sampled_from([(xs[0], ys[0], xs[1], ys[1]), (xs[0], ys[1])]))


@given(place_=places(), size=st.tuples(SIDE, SIDE), config=GRIDS)
def test_there_and_back_through_padding_and_every_view(place_, size, config):
    placement = place(size, config)
    square = to_square(from_pixels(to_pixels(place_, size), size), placement)
    assert all(-1e-9 <= number <= 1 + 1e-9 for number in square)
    for view in range(config.count):
        back = from_view(to_view(square, config.box(view)), config.box(view))
        assert back == pytest.approx(square, abs=1e-9)
    assert to_picture(square, placement) == pytest.approx(place_, abs=1e-5)


@given(point=st.tuples(SHARE, SHARE), size=st.tuples(SIDE, SIDE), config=st.sampled_from(CONFIGS[2:]))
def test_a_point_of_a_picture_lies_in_a_view_that_shows_some_of_it(point, size, config):
    placement = place(size, config)
    square = to_square(point, placement)
    slack = max(config.rows, config.columns) / placement.side  # a picture lies on whole pixels
    seen = [
        useful
        for view, useful in enumerate(useful_views(size, config))
        if view and all(-slack <= number <= 1 + slack for number in to_view(square, config.box(view)))
    ]
    assert any(seen)


@given(place_=places(), size=st.tuples(st.integers(50, 900), st.integers(50, 900)), config=GRIDS)
def test_two_decimals_are_as_near_as_they_can_be(place_, size, config):
    placement = place(size, config)
    (mark,) = find_marks(f"it is at {write(to_square(place_, placement))}.")
    (found,) = in_picture([mark], size, config)
    assert found.is_box == (len(place_) == 4)
    step = 0.005 * placement.side + 1e-6
    assert found.place == pytest.approx(to_pixels(place_, size), abs=step)


def test_where_a_wide_picture_lies():
    size, box = (200, 100), (0.0, 0.0, 0.5, 1.0)
    assert to_square(box, place(size, ViewConfig())) == (0.0, 0.25, 0.5, 0.75)
    assert to_square(box, place(size, ViewConfig(padding="end"))) == (0.0, 0.0, 0.5, 0.5)
    assert write((0.128, -0.2, 1.7, 1 / 3)) == "[0.13,0.00,1.00,0.33]"
    quarter = ViewConfig(image_size=448, rows=2, columns=2).box(2)
    assert to_view((0.5, 0.0, 0.75, 0.25), quarter) == (0.0, 0.0, 0.5, 0.5)


@pytest.mark.parametrize(
    ("answer", "marks"),
    [
        ("[0.10,0.20,0.30,0.40]", [("", (0.1, 0.2, 0.3, 0.4))]),
        ("a cat [0.1, 0.2, 0.3, 0.4], [0,0,1,1]; dog [.5 .5 1. 1.]",
         [("a cat", (0.1, 0.2, 0.3, 0.4)), ("a cat", (0, 0, 1, 1)), ("dog", (0.5, 0.5, 1, 1))]),
        ("nose [0.5,0.25], left eye [0.4,0.2]", [("nose", (0.5, 0.25)), ("left eye", (0.4, 0.2))]),
        ("title [0,0,1,0.1]: News\ntext [0,0.1,1,1]: It rains",
         [("title", (0, 0, 1, 0.1)), ("text", (0, 0.1, 1, 1))]),
        ("see [1], [a,b,c,d] and [1,2,3]", []),
        ("", []),
    ],
)  # fmt: skip
def test_marks_in_answers(answer, marks):
    assert find_marks(answer) == [Mark(*one) for one in marks]
