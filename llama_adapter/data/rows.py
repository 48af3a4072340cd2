"""Rows out of files that are not lists of records, and only some of them: what ``SourceConfig`` says of both.

Official data sets come as one object whose values, or one of whose lists, are the records, with all splits in
one file and several answers in one record. Nothing of the records' meaning is known here.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llama_adapter.data.json_stream import as_row
from llama_adapter.data.records import RawRow

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
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        yield RawRow(f"{name}:1", problem=f"the file is no JSON: {error}")
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
