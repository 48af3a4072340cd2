"""How LLaMA2-Accessory's tensor-parallel files share the tensors of a model; any number of them.

Maps whose output is split give rows to each file, those whose input is split columns, and token embeddings
are split by channel. Stacked experts are split inside each expert; experts with tensors of their own are
dealt out whole. Everything else is in every file.
Source: docs/sources/llama2-accessory.md#tensor-parallel-files.
"""

import re
from collections.abc import Sequence
from typing import Any

from llama_adapter.checkpoints.family import Habits
from llama_adapter.checkpoints.stored import Rotated, StackedExperts, Stored
from llama_adapter.errors import UserError

_MAP = re.compile(r"layers\.\d+\.(?:attention|feed_forward)\.(w\w+)\.weight")
_EXPERT = re.compile(r"layers\.\d+\.feed_forward\.experts\.(\d+)\..+")
_BY_MAP = {"wq": 0, "wk": 0, "wv": 0, "wo": 1, "w1": 0, "w2": 1, "w3": 0}
_OUTSIDE = {"tok_embeddings.weight": 1, "output.weight": 0}


def file_name(index: int, count: int) -> str:
    """The name of one of ``count`` files."""
    return f"consolidated.{index:02d}-of-{count:02d}.model.pth"


HABITS = Habits(file=file_name(0, 1), container="model", prefix="llma.")
"""How Accessory writes files."""


def accessory_layout(stored: Sequence[Stored], count: int) -> dict[str, Any]:
    """How so many files share a model.

    Args:
        stored: The official tensors, whole.
        count: Files.

    Returns:
        ``files``, their names; ``axes``, along which tensors are split, by name; ``holders``, the positions
        of the files that hold a tensor if not all do.

    Raises:
        UserError: A tensor, its heads or the experts cannot be divided by that number.
    """
    own = [int(found[1]) for one in stored if (found := _EXPERT.fullmatch(one.name))]
    experts = 1 + max(own, default=-1)
    _check(experts, count, "the experts of a layer")
    axes: dict[str, int] = {}
    holders: dict[str, list[int]] = {}
    for one in stored:
        if expert := _EXPERT.fullmatch(one.name):
            holders[one.name] = [int(expert[1]) * count // experts]
        elif (axis := _axis(one)) is not None:
            _check(_parts(one, axis), count, repr(one.name))
            axes[one.name] = axis
    return {"files": [file_name(index, count) for index in range(count)], "axes": axes, "holders": holders}


def _axis(one: Stored) -> int | None:
    """Along which files split a tensor, or what it holds of each expert; None where they do not."""
    if isinstance(one.layout, StackedExperts):
        return 0
    found = _MAP.fullmatch(one.name)
    return _BY_MAP.get(found[1]) if found else _OUTSIDE.get(one.name)


def _parts(one: Stored, axis: int) -> int:
    """What must be a multiple of the number of files: heads, or rows or columns."""
    if isinstance(one.layout, Rotated):
        return one.layout.heads
    return one.shape[axis] // (one.layout.experts if isinstance(one.layout, StackedExperts) else 1)


def _check(parts: int, count: int, what: str) -> None:
    """Refuse what cannot be divided.

    Raises:
        UserError: Says what.
    """
    if parts % count:
        raise UserError(
            f"{count} files cannot share {what}: {parts} parts. Use a number of files that divides them, "
            "such as 1."
        )
