"""Marks on a picture: boxes, points and their labels, and masks under them.

Line width and letters follow the picture's size; marks of one label have one colour. Answers and models are
not known here.

Dimensions: N marks, H x W the picture.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool

from llama_adapter.errors import UserError
from llama_adapter.lazy import needed
from sphinx_ft.boxes import Mark

COLOURS = (
    (220, 38, 38),
    (29, 98, 224),
    (22, 142, 66),
    (217, 119, 6),
    (147, 51, 190),
    (8, 145, 160),
    (190, 24, 110),
    (96, 78, 20),
)
MASK_SHARE = 0.45
"""How much of its colour a mask lays over the picture."""


def draw_marks(
    picture: Any,
    marks: Sequence[Mark],
    masks: Bool[np.ndarray, "N H W"] | None = None,
    font: str | None = None,
) -> Any:
    """A picture with marks drawn on it.

    Args:
        picture: a ``PIL.Image``; it stays as it is.
        marks: in its pixels.
        masks: what belongs to each mark; None draws none.
        font: a TrueType file for labels, for letters that Pillow's own font lacks.

    Raises:
        UserError: the font cannot be read.
    """
    colours = _colours(marks)
    drawn = picture.convert("RGB") if masks is None else _with_masks(picture, masks, colours)
    drawn = drawn.copy()
    pen = needed("PIL.ImageDraw", "pillow").Draw(drawn)
    letters = _font(font, max(11, min(picture.size) // 26))
    width = max(2, min(picture.size) // 160)
    for mark, colour in zip(marks, colours, strict=True):
        if mark.is_box:
            pen.rectangle(_ordered(mark.place), outline=colour, width=width)
        else:
            _draw_point(pen, mark.place, colour, width)
    for mark, colour in zip(marks, colours, strict=True):  # on top of all lines
        if mark.label:
            _draw_label(pen, mark, colour, letters, picture.size)
    return drawn


def _colours(marks: Sequence[Mark]) -> list[tuple[int, int, int]]:
    """A colour for each mark, the same for marks of one label; unlabelled ones differ."""
    known: dict[Any, int] = {}
    places = [known.setdefault(mark.label or number, len(known)) for number, mark in enumerate(marks)]
    return [COLOURS[place % len(COLOURS)] for place in places]


def _with_masks(
    picture: Any, masks: Bool[np.ndarray, "N H W"], colours: Sequence[tuple[int, int, int]]
) -> Any:
    """The picture with coloured areas."""
    pixels = np.asarray(picture.convert("RGB")).astype(np.float32)
    for mask, colour in zip(masks, colours, strict=True):
        pixels[mask] += MASK_SHARE * (np.array(colour, dtype=np.float32) - pixels[mask])
    return needed("PIL.Image", "pillow").fromarray(pixels.round().astype(np.uint8))


def _font(path: str | None, size: int) -> Any:
    """The letters of labels."""
    fonts = needed("PIL.ImageFont", "pillow")
    if path is None:
        return fonts.load_default(size)
    try:
        return fonts.truetype(path, size)
    except OSError as error:
        raise UserError(f"font is {path!r}, which cannot be read: {error}. Use a TrueType file.") from error


def _ordered(box: Sequence[float]) -> tuple[float, float, float, float]:
    """Left, top, right, bottom, whatever the order a model gave them in."""
    return min(box[0], box[2]), min(box[1], box[3]), max(box[0], box[2]), max(box[1], box[3])


def _draw_point(pen: Any, point: Sequence[float], colour: tuple[int, int, int], width: int) -> None:
    """A dot with a light rim, so that it is seen on any ground."""
    for radius, fill in ((2 * width + 1, (255, 255, 255)), (2 * width, colour)):
        x, y = point
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)


def _draw_label(pen: Any, mark: Mark, colour: tuple[int, int, int], font: Any, size: tuple[int, int]) -> None:
    """A label above its mark, moved inside of the picture."""
    left, top = _ordered(mark.place)[:2] if mark.is_box else (mark.place[0] + 6, mark.place[1] + 6)
    _, _, wide, high = pen.textbbox((0, 0), mark.label, font=font)
    wide, high = wide + 6, high + 4
    left = max(0.0, min(left, size[0] - wide))
    top = top - high if mark.is_box else top
    top = max(0.0, min(top, size[1] - high))
    pen.rectangle((left, top, left + wide, top + high), fill=colour)
    pen.text((left + 3, top + 1), mark.label, fill=(255, 255, 255), font=font)
