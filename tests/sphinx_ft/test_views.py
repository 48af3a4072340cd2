"""Padding, grids and cells of padding alone: by geometry, as the pixels have it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from llama_adapter.errors import UserError
from sphinx_ft.pictures import load_squares, square
from sphinx_ft.views import ViewConfig, cut_views, place, resize, useful_mask, useful_views

GRIDS = st.sampled_from([(0, 0), (1, 1), (2, 2), (3, 3), (1, 2), (3, 1), (2, 3), (4, 4)])
SIDES = st.integers(1, 97)
PADDINGS = st.sampled_from(["centred", "end"])


def config_of(grid, padding="centred", cell=8, **options):
    rows, columns = grid
    return ViewConfig(
        image_size=cell * max(rows, columns, 1), rows=rows, columns=columns, padding=padding, **options
    )


@given(width=SIDES, height=SIDES, grid=GRIDS, padding=PADDINGS)
@settings(deadline=None)
def test_useful_cells_are_those_whose_pixels_show_the_picture(width, height, grid, padding):
    """At a scale where every cell's edge falls on a pixel's edge, so that cropping decides."""
    config = config_of(grid, padding)
    placement = place((width, height), config)
    scale = 2 * max(*grid, 1)
    shown = torch.zeros(placement.side * scale, placement.side * scale)
    top, left = placement.top * scale, placement.left * scale
    shown[top : top + height * scale, left : left + width * scale] = 1
    found = []
    for view in range(config.count):
        x0, y0, x1, y1 = (round(edge * placement.side * scale) for edge in config.box(view))
        found.append(bool(shown[y0:y1, x0:x1].any()))
    assert useful_views((width, height), config) == found


@given(width=SIDES, height=SIDES, grid=GRIDS, padding=PADDINGS)
def test_picture_lies_inside_the_cells_and_touches_them(width, height, grid, padding):
    config = config_of(grid, padding)
    placed = place((width, height), config)
    box = placed.to_square((0, 0, 1, 1))
    cells = [config.box(view) for view in range(1, config.count)] or [config.box(0)]
    left, top = min(cell[0] for cell in cells), min(cell[1] for cell in cells)
    right, bottom = max(cell[2] for cell in cells), max(cell[3] for cell in cells)
    pixel = 1 / placed.side
    assert left - pixel <= box[0] <= box[2] <= right + pixel
    assert top - pixel <= box[1] <= box[3] <= bottom + pixel
    # no smaller square would do
    longer = max(*grid, 1)
    assert width * longer > (placed.side - 1) * max(grid[1], 1) or height * longer > (placed.side - 1) * max(
        grid[0], 1
    )


@given(width=SIDES, height=SIDES, grid=GRIDS, padding=PADDINGS, box=st.tuples(*[st.floats(0, 1)] * 4))
def test_boxes_come_back_from_the_square(width, height, grid, padding, box):
    placed = place((width, height), config_of(grid, padding))
    assert placed.to_picture(placed.to_square(box)) == pytest.approx(box, abs=1e-9)


def test_released_padding_is_centred_and_rounds_down():
    placed = place((60, 91), config_of((2, 2)))
    assert (placed.side, placed.left, placed.top) == (91, 15, 0)


@given(width=st.integers(2, 97), height=st.integers(2, 97))
def test_centred_padding_leaves_nothing_to_skip_in_two_by_two(width, height):
    assert all(useful_views((width, height), config_of((2, 2))))


@pytest.mark.parametrize(
    ("size", "grid", "expected"),
    [
        ((200, 100), (2, 2), [1, 1, 1, 0, 0]),  # the paper's figure 3
        ((100, 200), (2, 2), [1, 1, 0, 1, 0]),
        ((200, 101), (2, 2), [1, 1, 1, 1, 1]),
        ((300, 100), (3, 3), [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]),
        ((100, 100), (1, 2), [1, 1, 0]),
    ],
)
def test_padding_at_one_side_leaves_cells_to_skip(size, grid, expected):
    assert useful_views(size, config_of(grid, "end")) == [bool(value) for value in expected]


def test_centred_padding_leaves_rows_to_skip_from_three_to_one_on():
    assert useful_views((300, 100), config_of((3, 3))) == [True] + [False] * 3 + [True] * 3 + [False] * 3
    assert all(useful_views((290, 100), config_of((3, 3))))


@given(grid=GRIDS, padding=PADDINGS)
@settings(max_examples=20, deadline=None)
def test_views_are_the_whole_and_the_cells_row_by_row(grid, padding):
    config = config_of(grid, padding)
    size = config.image_size
    squares = torch.rand(2, 3, size, size)
    everything = torch.ones(2, config.count, dtype=torch.bool)
    views = cut_views(squares, everything, 8, config).unflatten(0, (2, config.count))
    torch.testing.assert_close(views[:, 0], resize(squares, 8, half=False))
    for view in range(1, config.count):
        x0, y0, x1, y1 = (round(edge * size) for edge in config.box(view))
        assert torch.equal(views[:, view], squares[:, :, y0:y1, x0:x1])


def test_useful_views_alone_are_cut_image_by_image():
    config = config_of((2, 2), "end")
    squares = torch.rand(3, 3, 16, 16)
    useful = useful_mask([(20, 10), (10, 10), (10, 20)], config)
    everything = cut_views(squares, torch.ones_like(useful), 8, config).unflatten(0, useful.shape)
    assert torch.equal(cut_views(squares, useful, 8, config), everything[useful])
    assert not len(cut_views(squares[:0], useful[:0], 8, config))


def test_sub_images_at_another_resolution_come_from_the_whole_square_resized():
    config = config_of((2, 2), cell=8, half_resize=True)
    squares = torch.rand(1, 3, 16, 16)
    views = cut_views(squares, torch.ones(1, 5, dtype=torch.bool), 6, config)
    fine = resize(squares, 12, half=True)
    assert torch.equal(views[4], fine[0, :, 6:, 6:])
    assert not torch.equal(fine, resize(squares, 12, half=False))


def test_square_has_padding_and_picture_where_geometry_says(tmp_path):
    picture = Image.new("RGB", (40, 20), (255, 0, 0))
    picture.save(tmp_path / "wide.png")
    config = ViewConfig(image_size=40, rows=2, columns=2, padding="end")
    (pixels,), useful = load_squares([tmp_path / "wide.png"], config)
    assert useful.tolist() == [[True, True, True, False, False]]
    # the padding's colour is CLIP's mean rounded down
    assert pixels[:, 30:].amax(dim=(1, 2)) == pytest.approx([-0.0112, -0.0113, -0.0013], abs=2e-4)
    assert (pixels[0, :18] > 1.9).all()
    assert torch.equal(pixels, square(picture, config))


def test_nothing_to_load_is_an_empty_batch():
    pixels, useful = load_squares([], ViewConfig())
    assert (pixels.shape, useful.shape) == ((0, 3, 224, 224), (0, 1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rows": 2}, "rows=2 and columns=0.*Use 0 for both"),
        ({"image_size": 225, "rows": 2, "columns": 2}, "image_size=225.*Use a multiple of 2"),
    ],
)
def test_refuses_grids_that_do_not_fit(settings, message):
    with pytest.raises(UserError, match=message):
        ViewConfig(**settings)


def test_refuses_a_picture_without_pixels():
    with pytest.raises(UserError, match="0 by 3 pixels"):
        place((0, 3), ViewConfig())
