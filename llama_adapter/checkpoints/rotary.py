"""Two orders of a head's rows under rotary embedding, and the way between them.

Meta rotates neighbouring rows (pairs), transformers rotates row i with row i + D/2 (halves). What makes
queries or keys (weights, biases, LoRA's up matrices) is therefore reordered head by head on the way; what
makes values is not. Source: docs/sources/llama-adapter.md#names-and-rotary-order.

Dimensions: N rows = heads x D; D head size; ``...`` anything after the rows.
"""

from jaxtyping import Shaped
from torch import Tensor

from llama_adapter.errors import UserError


def pairs_to_halves(rows: Shaped[Tensor, "N ..."], heads: int) -> Shaped[Tensor, "N ..."]:
    """From Meta's order of rows to transformers'.

    Args:
        rows: weight (N, H), bias (N,) or the like.
        heads: how many heads the rows belong to: query heads, or key/value heads for keys.
    """
    _check(rows, heads)
    return rows.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)


def halves_to_pairs(rows: Shaped[Tensor, "N ..."], heads: int) -> Shaped[Tensor, "N ..."]:
    """From transformers' order of rows to Meta's; the inverse of ``pairs_to_halves``."""
    _check(rows, heads)
    return rows.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)


def _check(rows: Shaped[Tensor, "N ..."], heads: int) -> None:
    """Refuse rows that are no whole number of heads."""
    if rows.shape[0] % (2 * heads):
        raise UserError(
            f"{rows.shape[0]} rows are not {heads} heads of an even size. "
            "Use the base model that belongs to this checkpoint."
        )
