"""Views of a picture: the whole and a grid of sub-images, cut out of one padded square.

A picture is padded to a square and resized once. What an encoder is given are views of that square: the
whole of it, then the cells of the grid, row by row. Which cells hold padding alone follows from the picture's
size, so nobody has to look at pixels. A grid whose rows and columns differ covers a part of the square that
has its shape; the picture is padded so that it lies inside. Encoders and files are not known here.

Source: docs/sources/sphinx.md#variants.

Dimensions: I images, P views that are cut out, S side of the square, v side of a view, in pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from llama_adapter.errors import UserError

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

Size: TypeAlias = tuple[int, int]
"""Width and height of a picture, in pixels."""
Box: TypeAlias = tuple[float, float, float, float]
"""Left, top, right, bottom, in [0, 1] of a width and height."""


@dataclass(kw_only=True, frozen=True)
class ViewConfig:
    """The square that a picture is padded to, and its views."""

    image_size: int = 224
    """Side of the square, in pixels."""
    rows: int = 0
    """Rows of the grid of sub-images; 0 for the whole picture alone."""
    columns: int = 0
    """Columns of the grid; 0 for the whole picture alone."""
    padding: Literal["centred", "end"] = "centred"
    """Where the picture lies: in the middle, as the released models have it, or at the left and top, as
    SPHINX-X pads. With ``centred`` no cell of a 2x2 grid is ever padding alone."""
    colour: Sequence[int] = field(default_factory=lambda: [122, 116, 104])
    """Of the padding, red, green, blue: CLIP's mean, rounded down."""
    half_resize: bool = False
    """Whether squares are cast to half precision before they are resized, as the published code does."""

    def __post_init__(self) -> None:
        if min(self.rows, self.columns) < 0 or (self.rows == 0) != (self.columns == 0):
            raise UserError(
                f"The grid has rows={self.rows} and columns={self.columns}. Use 0 for both, or two numbers "
                "above 0."
            )
        if self.image_size < 1 or (self.rows and self.image_size % self._longer):
            raise UserError(
                f"image_size={self.image_size} cannot be divided into {self.rows} rows and {self.columns} "
                f"columns of equal squares. Use a multiple of {max(self._longer, 1)}."
            )

    @property
    def count(self) -> int:
        """Views of a picture, the whole one included."""
        return 1 + self.rows * self.columns

    @property
    def _longer(self) -> int:
        """Cells along the side of the square."""
        return max(self.rows, self.columns)

    def cell(self, view: int) -> tuple[float, float]:
        """Left and top of a sub-image, counted in cells.

        Args:
            view: from 1; 0 is the whole picture.
        """
        row, column = divmod(view - 1, self.columns)
        if self.padding == "end":
            return column, row
        return column + (self._longer - self.columns) / 2, row + (self._longer - self.rows) / 2

    def box(self, view: int) -> Box:
        """Where a view lies in the square."""
        if view == 0:
            return 0.0, 0.0, 1.0, 1.0
        left, top = self.cell(view)
        return left / self._longer, top / self._longer, (left + 1) / self._longer, (top + 1) / self._longer


@dataclass(frozen=True)
class Placement:
    """Where a picture lies in its square, in the picture's own pixels."""

    side: int
    """Of the square."""
    left: int
    """From the square's left edge to the picture's."""
    top: int
    """From the square's upper edge to the picture's."""
    width: int
    """Of the picture."""
    height: int
    """Of the picture."""

    def to_square(self, box: Box) -> Box:
        """From [0, 1] of the picture to [0, 1] of the square."""
        left, top, right, bottom = box
        return (
            (self.left + left * self.width) / self.side,
            (self.top + top * self.height) / self.side,
            (self.left + right * self.width) / self.side,
            (self.top + bottom * self.height) / self.side,
        )

    def to_picture(self, box: Box) -> Box:
        """From [0, 1] of the square to [0, 1] of the picture; padding lies outside."""
        left, top, right, bottom = box
        return (
            (left * self.side - self.left) / self.width,
            (top * self.side - self.top) / self.height,
            (right * self.side - self.left) / self.width,
            (bottom * self.side - self.top) / self.height,
        )


def place(size: Size, config: ViewConfig) -> Placement:
    """Where a picture lies in the square that it is padded to.

    Raises:
        UserError: the picture has no pixels.
    """
    width, height = size
    if min(size) < 1:
        raise UserError(
            f"A picture of {width} by {height} pixels came. Use pictures with a width and a height."
        )
    if not config.rows:
        side = max(width, height)
    else:
        longer = max(config.rows, config.columns)
        side = max(-(-width * longer // config.columns), -(-height * longer // config.rows))
    if config.padding == "end":
        return Placement(side, 0, 0, width, height)
    return Placement(side, (side - width) // 2, (side - height) // 2, width, height)


def useful_views(size: Size, config: ViewConfig) -> list[bool]:
    """Which views of a picture show some of it; the others are padding alone. The whole one always does."""
    placement = place(size, config)
    return [True] + [_shows(placement, config, view) for view in range(1, config.count)]


def _shows(placement: Placement, config: ViewConfig, view: int) -> bool:
    """Whether some of the picture lies in a cell; exactly, in whole numbers of half cells times pixels."""
    halves, side = 2 * max(config.rows, config.columns), placement.side
    left, top = (round(2 * edge) * side for edge in config.cell(view))
    across = placement.left * halves < left + 2 * side and (placement.left + placement.width) * halves > left
    down = placement.top * halves < top + 2 * side and (placement.top + placement.height) * halves > top
    return across and down


def useful_mask(sizes: Sequence[Size], config: ViewConfig) -> Bool[Tensor, "I V"]:
    """``useful_views`` of several pictures."""
    return torch.tensor([useful_views(size, config) for size in sizes], dtype=torch.bool).view(
        -1, config.count
    )


def cut_views(
    squares: Float[Tensor, "I 3 S S"], useful: Bool[Tensor, "I V"], view_size: int, config: ViewConfig
) -> Float[Tensor, "P 3 v v"]:
    """Views at an encoder's resolution, image by image, those alone that are useful.

    Args:
        squares: padded pictures.
        useful: which views to cut out.
        view_size: v.
        config: the grid.
    """
    whole = resize(squares, view_size, config.half_resize)
    if not config.rows:
        return whole[useful[:, 0]]
    longer = max(config.rows, config.columns)
    fine = resize(squares, view_size * longer, config.half_resize)
    views = []
    for image, view in useful.nonzero().tolist():
        left, top = (round(edge * view_size) for edge in (config.cell(view) if view else (0, 0)))
        source = fine[image, :, top : top + view_size, left : left + view_size] if view else whole[image]
        views.append(source)
    return torch.stack(views) if views else whole[:0]


def resize(
    pixels: Float[Tensor, "I 3 S S"], size: int, half: bool, mode: str = "bicubic"
) -> Float[Tensor, "I 3 v v"]:
    """Squares of another side, without antialiasing; with ``half`` in half precision, as published."""
    if pixels.shape[-1] == size:
        return pixels
    given = pixels.half() if half else pixels
    options = {} if mode == "nearest" else {"align_corners": False}
    return nn.functional.interpolate(given, size=(size, size), mode=mode, **options).to(pixels.dtype)
