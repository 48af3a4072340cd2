"""A picture of search results: one line per query, what asked at the left, its neighbours to the right."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imagebind_llm.cache.listing import NamedBytes
from llama_adapter.data.images import read_image
from llama_adapter.lazy import needed

SIDE = 160
"""Pixels of a picture's longer side."""
_LABEL = 16
_GAP = 8
_LETTERS = 24
"""That fit under a picture."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One query."""

    asking: Path | str
    """A picture, or what to write instead."""
    pictures: list[NamedBytes]
    """Its neighbours, nearest first."""
    labels: list[str]
    """What to write under each."""


def write_sheet(lines: list[Line], path: Path) -> None:
    """Draw the lines under each other.

    Raises:
        UserError: a picture cannot be read.
    """
    pil, draw = needed("PIL.Image", "pillow"), needed("PIL.ImageDraw", "pillow")
    columns = 1 + max(len(line.pictures) for line in lines)
    cell = (SIDE + _GAP, SIDE + _LABEL + _GAP)
    sheet = pil.new("RGB", (columns * cell[0] + 2 * _GAP, len(lines) * cell[1] + _GAP), "white")
    pen = draw.Draw(sheet)
    for row, line in enumerate(lines):
        top = _GAP + row * cell[1]
        asking = read_image(line.asking) if isinstance(line.asking, Path) else None
        name = line.asking.stem if isinstance(line.asking, Path) else line.asking
        _place(sheet, pen, (_GAP, top), asking, name)
        for column, (picture, label) in enumerate(zip(line.pictures, line.labels, strict=True), start=1):
            with picture:
                _place(sheet, pen, (2 * _GAP + column * cell[0], top), read_image(picture), label)
        pen.line([(cell[0] + _GAP, top), (cell[0] + _GAP, top + SIDE)], fill="gray", width=2)
    sheet.save(path)


def _place(sheet: Any, pen: Any, corner: tuple[int, int], picture: Any, label: str) -> None:
    """One picture with its label."""
    if picture is not None:
        picture.thumbnail((SIDE, SIDE))
        left = corner[0] + (SIDE - picture.width) // 2
        sheet.paste(picture, (left, corner[1] + (SIDE - picture.height) // 2))
    pen.text((corner[0], corner[1] + SIDE + 2), label[:_LETTERS], fill="black")
