"""Rows out of files that are not lists of records, only some of them, joined: what ``SourceConfig`` says.

Official data sets come as one object whose values, or one of whose lists, are the records, with all splits in
one file, several answers in one record, or questions and answers in two files. Nothing of the records'
meaning is known here.
"""

import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llama_adapter.data.json_stream import Parser, Repeated, as_row
from llama_adapter.data.records import RawRow, RecordProblem

ALL_VALUES = "*"
"""Says that every value of the object is a record."""


def read_json_object(path: Path, name: str, records: str) -> Iterator[RawRow]:
    """The records of a JSON file that is one object.

    Args:
        path: the file.
        name: how the file is called in ``record_id``.
        records: key of the list or mapping of records, or ``*`` for all values.

    Yields:
        One row or problem per record; those of a mapping get its key as ``key``.
    """
    try:
        text = path.read_text(encoding="utf-8-sig").strip()
        content, end = Parser().parse(text)
        if end < len(text):
            raise json.JSONDecodeError("Extra data", text, end)
    except (json.JSONDecodeError, UnicodeDecodeError, RecordProblem) as error:
        yield RawRow(f"{name}:1", problem=f"the file is no JSON: {error}")
        return
    if isinstance(content, Repeated):
        yield RawRow(f"{name}:1", problem=f"the key {content.key!r} occurs twice in one object of the file")
        return
    found = content if records == ALL_VALUES else content.get(records) if isinstance(content, dict) else None
    if isinstance(found, dict):
        for key, value in found.items():
            row = as_row(f"{name}:{key}", value)
            yield row if row.problem else RawRow(row.record_id, row={"key": key, **row.row})
    elif isinstance(found, list):
        for number, value in enumerate(found, start=1):
            yield as_row(f"{name}:{number}", value)
    else:
        what = sorted(content) if isinstance(content, dict) else type(content).__name__
        yield RawRow(f"{name}:1", problem=f"there are no records under {records!r}; the file has {what}")


def joined_rows(rows: Iterable[RawRow], others: Iterable[RawRow], column: str) -> Iterator[RawRow]:
    """Rows with the columns of those of another file that have the same value in a column.

    Args:
        rows: all.
        others: of the other file, which is held in memory.
        column: its name.

    Yields:
        Rows; one without a partner, or whose partner is a problem, becomes a problem.
    """
    partners = {}
    for other in others:
        key = other.row.get(column) if isinstance(other.row, dict) and not other.problem else None
        if key is not None:
            partners[str(key)] = other.row
    for raw in rows:
        if raw.problem or not isinstance(raw.row, dict):
            yield raw
        elif (partner := partners.get(str(raw.row.get(column)))) is None:
            problem = f"the joined file has no record with {column}={raw.row.get(column)!r}"
            yield RawRow(raw.record_id, problem=problem)
        else:
            yield RawRow(raw.record_id, row={**partner, **raw.row})


def chosen_rows(
    rows: Iterable[RawRow], only: Mapping[str, Sequence[str]], each: str | None
) -> Iterator[RawRow]:
    """Rows with certain values, taken apart by the entries of a list.

    Args:
        rows: all.
        only: column -> values, of which a row must have one; as texts.
        each: column with a list, for whose entries there is a row each; None leaves rows whole.

    Yields:
        Rows; problems pass.
    """
    for raw in rows:
        row: Any = raw.row
        if raw.problem or not isinstance(row, dict):
            yield raw
            continue
        if any(str(row.get(column)) not in values for column, values in only.items()):
            continue
        if each is None or not isinstance(row.get(each), list):
            yield raw
            continue
        for number, entry in enumerate(row[each], start=1):
            yield RawRow(f"{raw.record_id}.{number}", row=row | {each: entry})


def sampled_rows(rows: Iterable[RawRow], ratio: float | None) -> Iterator[RawRow]:
    """A random part of the rows, drawn with the published seed; in the order of drawing.

    Args:
        rows: all of a file, which are then held in memory.
        ratio: which share of them; None leaves all, as they come.

    Yields:
        Rows.
    """
    if ratio is None:
        yield from rows
        return
    held = list(rows)
    yield from random.Random(0).sample(held, int(len(held) * ratio))
