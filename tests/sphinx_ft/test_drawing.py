"""Marks stand in the picture where they belong, in their colour."""

import numpy as np
import pytest

from llama_adapter.errors import UserError
from sphinx_ft.boxes import Mark
from sphinx_ft.drawing import COLOURS, draw_marks

image = pytest.importorskip("PIL.Image", reason="pillow is not installed: pip install pillow")
GROUND = (250, 250, 250)


def picture(size=(320, 160)):
    return image.new("RGB", size, GROUND)


def where(drawn, colour):
    """Rows and columns that have a colour."""
    return np.nonzero((np.asarray(drawn) == colour).all(-1))


def test_a_box_is_drawn_along_its_edges_and_nowhere_else():
    before = picture()
    drawn = draw_marks(before, [Mark("", (40, 20, 200, 120))])
    rows, columns = where(drawn, COLOURS[0])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (20, 120, 40, 200)
    inside = np.asarray(drawn)[25:115, 45:195]
    assert (inside == GROUND).all()
    assert np.asarray(before).min() == 250  # what was given stays as it is


@pytest.mark.parametrize("place", [(0, 0, 319, 159), (300, 150, 319, 159), (200.4, 120.2, 40.1, 20.9)])
def test_labels_stay_inside_and_boxes_may_be_turned_round(place):
    with_label = np.asarray(draw_marks(picture(), [Mark("a long label", place)]))
    without = np.asarray(draw_marks(picture(), [Mark("", place)]))
    rows, columns = np.nonzero((with_label != without).any(-1))
    assert with_label.shape == (160, 320, 3)
    assert np.ptp(columns) > 50  # the whole of it
    assert np.ptp(rows) > 10


def test_marks_of_one_label_share_a_colour():
    boxes = [Mark("cat", (10, 30, 60, 80)), Mark("dog", (90, 30, 140, 80)), Mark("cat", (180, 30, 230, 80))]
    drawn = draw_marks(picture(), boxes)
    assert where(drawn, COLOURS[0])[1].max() > 200
    assert 90 <= where(drawn, COLOURS[1])[1].min() < 140
    assert not len(where(drawn, COLOURS[2])[0])


def test_a_point_is_a_dot_with_a_rim():
    drawn = np.asarray(draw_marks(picture(), [Mark("", (100, 50))]))
    assert tuple(drawn[50, 100]) == COLOURS[0]
    rows, columns = where(drawn, COLOURS[0])
    assert (rows.mean(), columns.mean()) == pytest.approx((50, 100), abs=1)
    assert np.ptp(rows) < 12


def test_a_mask_colours_what_it_holds():
    masks = np.zeros((1, 160, 320), dtype=bool)
    masks[0, 60:70, 60:70] = True
    drawn = np.asarray(draw_marks(picture(), [Mark("", (40, 20, 200, 120))], masks))
    changed = (drawn != GROUND).any(-1)
    assert changed[60:70, 60:70].all()
    assert not changed[75:110, 75:190].any()


def test_a_font_that_is_none():
    with pytest.raises(UserError, match="font is 'none.ttf'"):
        draw_marks(picture(), [Mark("a", (1, 2))], font="none.ttf")
