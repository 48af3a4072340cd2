"""Readers of whole files: CSV, TSV, Parquet, JSON, JSON lines and text, each yielding rows with their line.

The standard library's parsers are used for text because they know the line; ``datasets`` reads faster but can
only say that some block of some file was bad. A reader never raises for what the file contains: it yields the
problem and goes on if it can. A new container is one function and one ``register_container`` line.
"""

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

from llama_adapter.data.json_stream import read_json, read_json_lines
from llama_adapter.data.records import RawRow

Reader = Callable[[Path, str], Iterator[RawRow]]
"""Takes a file and the name it has in ``record_id``; yields rows."""

CONTAINERS: dict[str, Reader] = {}
"""File suffix -> reader."""


def register_container(reader: Reader, *suffixes: str) -> None:
    """Make files with these suffixes readable.

    Args:
        reader: yields the rows of one file.
        *suffixes: such as ``".jsonl"``, in lower case.
    """
    CONTAINERS.update(dict.fromkeys(suffixes, reader))


def _header_problem(header: list[str]) -> str:
    """Why a header cannot be used, or an empty text."""
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        return f"the header has the column {repeated[0]!r} more than once"
    return "the header has a column without a name" if "" in header else ""


def _table(path: Path, name: str, dialect: str) -> Iterator[RawRow]:
    """Read delimited text with a header; cells stay text."""
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as handle:
        reader = csv.reader(handle, dialect, strict=True)
        header: list[str] | None = None
        while True:
            line = reader.line_num + 1  # of the row's start: a quoted cell may run over several lines
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield RawRow(f"{name}:{line}", problem=f"not a valid row: {error}")
                continue
            if not cells:
                continue
            if header is None:
                header = cells
                if problem := _header_problem(header):
                    yield RawRow(f"{name}:{line}", problem=problem)
                    return
            elif len(cells) != len(header):
                yield RawRow(
                    f"{name}:{line}", problem=f"the row has {len(cells)} cells, the header {len(header)}"
                )
            else:
                yield RawRow(f"{name}:{line}", row=dict(zip(header, cells, strict=True)))


def read_csv(path: Path, name: str) -> Iterator[RawRow]:
    """Read comma-separated text with a header.

    Args:
        path: the file.
        name: how the file is called in ``record_id``.

    Yields:
        One row or problem per data row.
    """
    yield from _table(path, name, "excel")


def read_tsv(path: Path, name: str) -> Iterator[RawRow]:
    """Read tab-separated text with a header, as the published caption lists are.

    Args:
        path: the file.
        name: how the file is called in ``record_id``.

    Yields:
        One row or problem per data row.
    """
    yield from _table(path, name, "excel-tab")


def read_parquet(path: Path, name: str) -> Iterator[RawRow]:
    """Read Parquet batch by batch; the "line" is the row number, counted from 1.

    Args:
        path: the file.
        name: how the file is called in ``record_id``.

    Yields:
        One row per row, or one problem when the file cannot be read.
    """
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            if problem := _header_problem(file.schema_arrow.names):
                yield RawRow(f"{name}:1", problem=problem)
                return
            for batch in file.iter_batches(batch_size=256):
                for row in batch.to_pylist():
                    number += 1
                    yield RawRow(f"{name}:{number}", row=row)
    except (pyarrow.ArrowException, UnicodeDecodeError, OSError) as error:
        yield RawRow(f"{name}:{number + 1}", problem=f"the Parquet file cannot be read here: {error}")


def read_text_lines(path: Path, name: str) -> Iterator[RawRow]:
    """Read a prompt per line, for files of questions; lines end with a line feed, whatever else is in them.

    Args:
        path: the file.
        name: how the file is called in ``record_id``.

    Yields:
        One row with a ``prompt`` per line that is not blank.
    """
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="\n") as handle:
        for number, line in enumerate(handle, start=1):
            if line.strip():
                yield RawRow(f"{name}:{number}", row={"prompt": line.removesuffix("\n").removesuffix("\r")})


register_container(read_json, ".json")
register_container(read_json_lines, ".jsonl", ".ndjson")
register_container(read_csv, ".csv")
register_container(read_tsv, ".tsv")
register_container(read_parquet, ".parquet")
