"""The small JSON files of a cache: what they hold, how they are written and checked.

A cache is a folder::

    cache.json                what the rows are made of; the same for all processes
    part-0002-of-0008/        rows of one process: see ``parts``
    index/                    see ``indexing``

A file is complete or absent. One that was changed by hand or damaged is refused with its name.
"""

import dataclasses
import json
import math
import os
import types
import typing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from llama_adapter.errors import UserError

FORMAT = 1
"""Raise it when the files change; a folder of another format is refused."""

METRIC = "inner_product"
"""How rows are compared."""

Record = TypeVar("Record")


@dataclass(frozen=True, kw_only=True)
class EncoderRecord:
    """Which encoder made embeddings, known by its content."""

    name: str
    """For messages only."""
    weights: str
    """SHA-256 of the weights."""
    space: str
    """SHA-256 of weights, settings and what is taken as the embedding: equal ones share a space."""
    transform: str
    """SHA-256 of how pictures become the encoder's input."""

    def __str__(self) -> str:
        """For messages."""
        return f"{self.name!r} (weights {self.weights[:12]}, space {self.space[:12]})"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What the rows of a cache are made of: ``cache.json``."""

    format: int
    """``FORMAT``."""
    dimension: int
    """Width of an embedding."""
    metric: str
    """``inner_product``, of rows of length 1: the cosine."""
    items: int
    """Pictures, or rows of feature files, before any are skipped."""
    source: str
    """SHA-256 of the items' names."""
    block: int
    """Items that are encoded together."""
    shards: int
    """Parts that the items are divided into."""
    encoder: EncoderRecord | None
    """None for features of an encoder that was not named."""
    root: str
    """Where the items lay; the one value in which processes may differ."""


@dataclass(frozen=True, kw_only=True)
class PartRecord:
    """A finished part: ``part.json``."""

    rows: int
    """Embeddings in it."""
    skipped: int
    """Items that could not be used; ``skipped.jsonl`` names them."""
    digest: str
    """SHA-256 of its embeddings."""


@dataclass(frozen=True, kw_only=True)
class IndexRecord:
    """What an index was made of and how it is asked: ``index/index.json``."""

    kind: str
    """One of ``IndexConfig.kind``, never ``auto``."""
    rows: int
    """Embeddings in it."""
    digest: str
    """SHA-256 over the parts' digests."""
    lists: int
    """Lists of an inverted file; 0 without."""
    bytes_per_row: int
    """Of a code; 0 without."""
    probes: int
    """Lists visited per query, or the width of the walk through a graph."""
    candidates: int
    """Rows whose stored embeddings are compared with the query."""
    recall: float
    """Recall of 10 neighbours that these two reach for rows of the cache; exact search 1."""
    seed: int
    """Of the training sample."""


def write_record(path: Path, record: Any) -> None:
    """Write a record so that it is there as a whole or not at all."""
    write_whole(path, json.dumps(asdict(record), indent=1) + "\n")


def write_whole(path: Path, text: str) -> None:
    """Write a small text so that it is there as a whole or not at all."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)


def read_record(path: Path, kind: type[Record]) -> Record:
    """A record of that kind.

    Raises:
        UserError: the file is missing, is damaged, or has other fields or types of values.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(
            f"{str(path)!r} is not there. Build the cache with 'llama-adapter cache build'."
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{str(path)!r} is damaged: {error}. {_AGAIN}") from error
    return _filled(content, kind, path)


_AGAIN = "Restore it, or build into a new folder."


def _filled(content: Any, kind: type[Record], path: Path) -> Record:
    """JSON values as a record."""
    hints = typing.get_type_hints(kind)
    if not isinstance(content, dict) or set(content) != set(hints):
        given = sorted(content) if isinstance(content, dict) else type(content).__name__
        raise UserError(f"{str(path)!r} holds {given}, not the fields {sorted(hints)}. {_AGAIN}")
    values = {name: _value(value, hints[name], path) for name, value in content.items()}
    for name, value in values.items():
        number = isinstance(value, int | float)
        if not isinstance(value, hints[name]) or (number and not 0 <= value < math.inf) or value is True:
            raise UserError(f"{str(path)!r} has {name}={value!r}, which cannot be. {_AGAIN}")
    return kind(**values)


def _value(value: Any, hint: Any, path: Path) -> Any:
    """A value, as a record where one is expected; a whole number where a fraction may stand is one."""
    if hint is float and type(value) is int:
        return float(value)
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    record = next((option for option in options if dataclasses.is_dataclass(option)), None)
    return _filled(value, record, path) if record and isinstance(value, dict) else value  # type: ignore[arg-type]
