"""How Meta's code splits weights over tensor-parallel files, and how they are joined again.

Maps whose output is split have their rows in different files, maps whose input is split their columns; norms
are the same in every file. Token embeddings were split along the hidden size up to LLaMA 2 and along the
vocabulary since LLaMA 3, which their shape shows.

Dimensions: ``...`` any shape.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Shaped
from torch import Tensor

EMBEDDINGS = "tok_embeddings.weight"

_AXES = {"wq": 0, "wk": 0, "wv": 0, "w1": 0, "w3": 0, "output": 0, "wo": 1, "w2": 1}
"""Last part of a map's name -> axis along which files split it."""


def split_axis(name: str, piece: Sequence[int], hidden_size: int) -> int | None:
    """Axis along which a weight is split over files; None for what every file holds whole.

    Args:
        name: Meta's name of the weight.
        piece: Shape of one file's share.
        hidden_size: Of the model.
    """
    if name == EMBEDDINGS:
        return 0 if piece[1] == hidden_size else 1
    return _AXES.get(name.removesuffix(".weight").rpartition(".")[2])


def joined_shape(piece: Sequence[int], axis: int | None, count: int) -> tuple[int, ...]:
    """Shape of a weight from the shape of one file's share."""
    return tuple(size * count if position == axis else size for position, size in enumerate(piece))


def join(pieces: Sequence[Shaped[Tensor, "..."]], axis: int | None) -> Shaped[Tensor, "..."]:
    """One weight from every file's share."""
    return pieces[0] if axis is None or len(pieces) == 1 else torch.cat(list(pieces), dim=axis)


def split(weight: Shaped[Tensor, "..."], axis: int | None, count: int) -> list[Shaped[Tensor, "..."]]:
    """Every file's share of a weight; the inverse of ``join``."""
    if axis is None:
        return [weight] * count
    return [piece.contiguous() for piece in weight.chunk(count, dim=axis)]
