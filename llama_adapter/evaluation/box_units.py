"""Boxes and the units they are counted in: to pixels, overlaps, and signs that the unit is another one.

It does not know questions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Box = tuple[float, float, float, float]
"""Left, top, right, bottom; with ``pixels_xywh`` left, top, width, height."""
Coordinates = Literal["square", "square_end", "image", "thousandths", "pixels", "pixels_xywh"]
"""Shares of the square padded on both sides, or at the end alone; shares of the picture,
thousandths of the picture, or pixels: left, top, right, bottom, or left, top, width, height."""

OUTSIDE = 1.05
"""Shares above this lie outside of the picture, and are more than a careless answer."""
NEAR_ZERO = 0.1
"""Where no overlap is larger, the unit is doubted."""
MUCH_BETTER = 0.25
"""Also where another unit would make so large a share of the boxes right that are not."""


@dataclass(frozen=True)
class Compared:
    """A box of an answer beside the right one."""

    box: Box
    """The numbers of the answer."""
    wanted: Box
    """The right box, in pixels."""
    size: tuple[float, float]
    """Height and width of the picture."""

    def overlap(self, coordinates: Coordinates) -> float:
        """The overlap, if the answer counts in these units."""
        return iou(to_pixels(self.box, *self.size, coordinates), self.wanted)


def to_pixels(box: Box, height: float, width: float, coordinates: Coordinates) -> Box:
    """A box in pixels of the picture.

    Args:
        box: as the model gave it.
        height: of the picture, in pixels.
        width: of the picture, in pixels.
        coordinates: what the numbers are.
    """
    if coordinates == "pixels":
        return box
    if coordinates == "pixels_xywh":
        return (box[0], box[1], box[0] + box[2], box[1] + box[3])
    if coordinates in ("square", "square_end"):
        side = max(height, width)
        right, down = (0, 0) if coordinates == "square_end" else ((side - width) // 2, (side - height) // 2)
        return (box[0] * side - right, box[1] * side - down, box[2] * side - right, box[3] * side - down)
    unit = 1000 if coordinates == "thousandths" else 1
    return (box[0] * width / unit, box[1] * height / unit, box[2] * width / unit, box[3] * height / unit)


def iou(first: Sequence[float], second: Sequence[float]) -> float:
    """Area of the intersection of two boxes over that of their union; 0 for boxes without area.

    Args:
        first: left, top, right, bottom.
        second: the same of another box.
    """
    across = min(first[2], second[2]) - max(first[0], second[0])
    down = min(first[3], second[3]) - max(first[1], second[1])
    areas = [max(box[2] - box[0], 0) * max(box[3] - box[1], 0) for box in (first, second)]
    shared = max(across, 0) * max(down, 0)
    union = sum(areas) - shared
    return shared / union if union > 0 and all(areas) else 0.0


def reference_problem(box: Box, size: tuple[float, float]) -> str:
    """Why a box cannot be the right one of a picture; empty if it can.

    Args:
        box: left, top, right, bottom, in pixels.
        size: height and width of the picture.
    """
    if box[2] <= box[0] or box[3] <= box[1]:
        return "its right or lower edge comes before the other"
    if (
        box[2] > size[1] + _margin(size[1])
        or box[3] > size[0] + _margin(size[0])
        or min(box) < -_margin(min(size))
    ):
        return "it lies outside of the picture"
    return "it is smaller than a pixel, as shares are" if max(box) <= 1 < min(size) else ""


def doubts(found: Sequence[Compared], coordinates: Coordinates, threshold: float) -> list[str]:
    """Signs that the numbers of answers are of another unit.

    Args:
        found: all boxes that were read.
        coordinates: what they are taken for.
        threshold: the overlap that counts as right.

    Returns:
        Notes for the table, with what another unit would give.
    """
    signs = {
        "have numbers outside of the picture": sum(_is_outside(one, coordinates) for one in found),
        "have a right or lower edge before the other": sum(
            coordinates != "pixels_xywh" and (one.box[2] < one.box[0] or one.box[3] < one.box[1])
            for one in found
        ),
        "are smaller than a pixel": sum(
            coordinates.startswith("pixels") and max(one.box) <= 1 < min(one.size) for one in found
        ),
    }
    notes = [f"{count} of {len(found)} boxes {what}." for what, count in signs.items() if count]
    if found and max(one.overlap(coordinates) for one in found) < NEAR_ZERO:
        notes.append(f"No box overlaps its reference by {NEAR_ZERO} or more.")
    right = {unit: sum(one.overlap(unit) >= threshold for one in found) for unit in get_args(Coordinates)}
    best = max(right, key=right.__getitem__)
    gain = right[best] - right[coordinates]
    if not notes and gain <= MUCH_BETTER * len(found):
        return []
    other = f"With {best} {right[best]} of them would be right, not {right[coordinates]}."
    return [
        " ".join(
            [*notes, f"Is --coordinates {coordinates} right?", other if gain else "No other finds more."]
        )
    ]


def _is_outside(one: Compared, coordinates: Coordinates) -> bool:
    """Whether a box has numbers that no place in the picture has."""
    if coordinates.startswith("pixels"):
        height, width = one.size
        right, below = to_pixels(one.box, height, width, coordinates)[2:]
        return right > OUTSIDE * width or below > OUTSIDE * height or min(one.box) < -_margin(min(one.size))
    unit = 1000 if coordinates == "thousandths" else 1
    return max(one.box) > OUTSIDE * unit or min(one.box) < (1 - OUTSIDE) * unit


def _margin(length: float) -> float:
    """How far a box may reach over the edge: annotations are drawn by hand."""
    return max(2.0, 0.02 * length)
