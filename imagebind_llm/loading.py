"""Rows of inputs, read from their files: what stands between a processor and the towers.

Unusual: an input that occurs in several rows is read once, and so embedded once. Weights stay with the rows.
No weights of a model are known here.

Dimensions: R rows.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from imagebind_llm.imagebind.model import Values
from imagebind_llm.processing.processor import TOWERS
from llama_adapter.errors import UserError
from llama_adapter.media import MODALITIES, MediaItem, Mix

Key: TypeAlias = tuple[str, Any]
"""What tells an input from others: its tower and its content."""
Row: TypeAlias = Sequence[Sequence[Any] | MediaItem] | Mix | None
"""What a row is shown: (modality, file or text, weight), the weight being 1 where it is left out; an image
may be a picture of Pillow."""


@dataclass(frozen=True, eq=False)
class LoadedMixes:
    """What R rows are shown, read from the files."""

    rows: tuple[Mix | None, ...]
    """Inputs and weights of each row; None where it is shown nothing."""
    values: Mapping[str, Values]
    """Tower -> what it takes, of all rows."""
    keys: Mapping[str, tuple[Key, ...]]
    """Tower -> which input each of its records is."""


def load_mixes(
    rows: Sequence[Mix | None], read: Callable[[Mapping[str, Any]], Any], known: Collection[Key] = ()
) -> LoadedMixes:
    """Read the files of rows.

    Args:
        rows: inputs and weights.
        read: from tower -> files to tower -> values, as ``ImageBindProcessor`` does it.
        known: inputs that need not be read.

    Raises:
        UserError: a file cannot be used.
    """
    contents: dict[str, dict[Key, Any]] = {}
    for one in (one for row in rows if row is not None for one in row.inputs):
        if (key := input_key(one)) not in known:
            contents.setdefault(key[0], {})[key] = one.content
    values = read({tower: list(found.values()) for tower, found in contents.items()})
    return LoadedMixes(tuple(rows), values, {tower: tuple(found) for tower, found in contents.items()})


def input_key(one: MediaItem) -> Key:
    """Tower and content of an input; the content of what is no text is the object itself."""
    content = one.content if isinstance(one.content, str) else id(one.content)
    return TOWERS.get(one.modality, one.modality), content


def as_mix(row: Row) -> Mix | None:
    """A row's inputs.

    Raises:
        UserError: a modality is unknown, or an input is none.
    """
    if row is None or isinstance(row, Mix):
        return row
    inputs = [_input(one) for one in row]
    if unknown := next((one.modality for one in inputs if one.modality not in MODALITIES), None):
        raise UserError(f"Unknown modality {unknown!r}. Use some of {MODALITIES}.")
    return Mix(tuple(inputs)) if inputs else None


def _input(one: Any) -> MediaItem:
    """One input."""
    if isinstance(one, MediaItem):
        return one
    if not isinstance(one, tuple | list) or len(one) not in (2, 3):
        raise UserError(f"The input {one!r} came. Use (modality, file or text) or (modality, file, weight).")
    modality, content, *weight = one
    return weighted(str(modality), content, weight[0] if weight else 1.0)


def weighted(modality: str, content: Any, weight: Any) -> MediaItem:
    """An input as a program gives it: a path becomes its text, an opened file or a picture stays.

    Raises:
        UserError: the weight is no number.
    """
    try:
        number = float(weight)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"The weight of {modality} {content!r} is {weight!r}. Use a number, such as 0.5.")
    return MediaItem(modality, str(content) if isinstance(content, Path) else content, number)
