"""Boxes and points in words, and where they lie: in a picture, in its padded square, in a view of that.

SPHINX writes ``[x1,y1,x2,y2]`` in shares of the padded square, with two decimals; points likewise with two
numbers. Geometry is ``views``'; here it is applied and written. Pixels are not touched.

Source: docs/sources/sphinx.md#padding-and-boxes.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from llama_adapter.errors import UserError
from sphinx_ft.views import Box, Placement, Size, ViewConfig, place

Point: TypeAlias = tuple[float, float]
"""Across and down."""

WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)"
_MARK = re.compile(rf"\[\s*({_NUMBER}(?:\s*[,;\s]\s*{_NUMBER})+)\s*\]")
_SEPARATORS = " \t\n,;:.-–•*"


@dataclass(frozen=True)
class Mark:
    """A box or a point with the words in front of it."""

    label: str
    """What was said of it; may be empty."""
    place: Box | Point
    """Four numbers are a box, two a point."""

    @property
    def is_box(self) -> bool:
        """Whether it is a box."""
        return len(self.place) == 4


def padded_as(padding: str, grid: str) -> ViewConfig:
    """How pictures are padded, from what users say.

    Args:
        padding: centred or end.
        grid: rows and columns of sub-images, such as 2x2.

    Raises:
        UserError: the grid is no grid.
    """
    rows, _, columns = grid.partition("x")
    if not (rows.isdigit() and columns.isdigit() and int(rows) and int(columns)):
        raise UserError(f"grid is {grid!r}. Use rows x columns of sub-images, such as 2x2.")
    size = int(rows) * int(columns)
    return ViewConfig(image_size=size, rows=int(rows), columns=int(columns), padding=padding)  # type: ignore[arg-type]


def write(numbers: Sequence[float]) -> str:
    """A box or a point as the model says it; what lies outside of the square is cut off."""
    return "[" + ",".join(f"{min(max(number, 0.0), 1.0):.2f}" for number in numbers) + "]"


def find_marks(answer: str) -> list[Mark]:
    """All boxes and points of an answer, with what stands in front of each on its line.

    Args:
        answer: what a model said. Several marks behind one label all get it.

    Returns:
        Marks in order; brackets with other than two or four numbers are passed over.
    """
    marks: list[Mark] = []
    for line in answer.splitlines():
        last, label = 0, ""
        for found in _MARK.finditer(line):
            numbers = tuple(map(float, re.findall(_NUMBER, found.group(1))))
            said = line[last : found.start()].strip(_SEPARATORS)
            last, label = found.end(), said or label
            if len(numbers) in (2, 4):
                marks.append(Mark(label, numbers))  # type: ignore[arg-type]
    return marks


def corners(numbers: Sequence[float]) -> Box:
    """A box or a point as a box; a point is one without extent."""
    return (numbers[0], numbers[1], numbers[-2], numbers[-1])


def to_square(place_: Box | Point, placement: Placement) -> Box | Point:
    """From shares of a picture to shares of its padded square."""
    return _like(place_, placement.to_square(corners(place_)))


def to_picture(place_: Box | Point, placement: Placement) -> Box | Point:
    """From shares of the padded square to shares of the picture; padding is outside of [0, 1]."""
    return _like(place_, placement.to_picture(corners(place_)))


def to_pixels(place_: Box | Point, size: Size) -> Box | Point:
    """From shares of a picture to its pixels."""
    return _like(place_, _scaled(corners(place_), WHOLE, (0.0, 0.0, float(size[0]), float(size[1]))))


def from_pixels(place_: Box | Point, size: Size) -> Box | Point:
    """From pixels of a picture to its shares."""
    return _like(place_, _scaled(corners(place_), (0.0, 0.0, float(size[0]), float(size[1])), WHOLE))


def to_view(place_: Box | Point, view: Box) -> Box | Point:
    """From shares of the square to shares of one of its views, as ``ViewConfig.box`` gives it."""
    return _like(place_, _scaled(corners(place_), view, WHOLE))


def from_view(place_: Box | Point, view: Box) -> Box | Point:
    """From shares of a view to shares of the square."""
    return _like(place_, _scaled(corners(place_), WHOLE, view))


def in_picture(marks: Sequence[Mark], size: Size, config: ViewConfig) -> list[Mark]:
    """Marks in shares of the square as marks in pixels of the picture, cut off at its edges.

    Args:
        marks: as the model says them.
        size: of the picture.
        config: how it was padded.
    """
    placement = place(size, config)
    found = []
    for mark in marks:
        inside = [min(max(number, 0.0), 1.0) for number in to_picture(mark.place, placement)]
        found.append(Mark(mark.label, to_pixels(_like(mark.place, corners(inside)), size)))
    return found


def _like(place_: Box | Point, box: Box) -> Box | Point:
    """A box, or a point where one was given."""
    return box if len(place_) == 4 else (box[0], box[1])


def _scaled(box: Box, old: Box, new: Box) -> Box:
    """The same place in another frame: two boxes that say where the frames lie."""
    across, down = (new[2] - new[0]) / (old[2] - old[0]), (new[3] - new[1]) / (old[3] - old[1])
    return (
        new[0] + (box[0] - old[0]) * across,
        new[1] + (box[1] - old[1]) * down,
        new[0] + (box[2] - old[0]) * across,
        new[1] + (box[3] - old[1]) * down,
    )
