"""How weights are split over tensor-parallel files, and how they are joined again.

The shapes show it: where a file's share is smaller than the whole weight, files split that axis (rows of maps
whose output is split, columns of maps whose input is, either of the token embeddings); otherwise every file
holds the weight whole.

Dimensions: ``...`` any shape.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Shaped
from torch import Tensor


def split_axis(piece: Sequence[int], whole: Sequence[int], count: int) -> int | None:
    """Axis along which ``count`` files split a weight; None for what every file holds whole.

    Args:
        piece: Shape of one file's share.
        whole: Shape of the weight.
        count: Files that hold a share.
    """
    if count == 1 or len(piece) != len(whole):
        return None
    pairs = enumerate(zip(piece, whole, strict=True))
    return next((axis for axis, (share, size) in pairs if share * count == size), None)


def joined_shape(piece: Sequence[int], axis: int | None, count: int) -> tuple[int, ...]:
    """Shape of a weight from the shape of one file's share."""
    return tuple(size * count if position == axis else size for position, size in enumerate(piece))


def join(pieces: Sequence[Shaped[Tensor, "..."]], axis: int | None) -> Shaped[Tensor, "..."]:
    """One weight from every file's share."""
    return pieces[0] if axis is None else torch.cat(list(pieces), dim=axis)


def split(weight: Shaped[Tensor, "..."], axis: int | None, count: int) -> list[Shaped[Tensor, "..."]]:
    """Every file's share of a weight; the inverse of ``join``."""
    if axis is None:
        return [weight] * count
    return [piece.contiguous() for piece in weight.chunk(count, dim=axis)]
