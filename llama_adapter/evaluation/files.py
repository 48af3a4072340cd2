"""Reads the JSON and JSON-lines files that evaluations use, with errors that name the file and the line.

Light on purpose: no `datasets`, no torch, so that scoring starts at once. It does not know what a record
means.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llama_adapter.errors import UserError


def read_json(path: str | Path) -> Any:
    """Reads a JSON file, or JSON lines as a list.

    Args:
        path: the file; `.jsonl` and `.ndjson` hold a value per line.

    Raises:
        UserError: the file cannot be read or is not JSON.
    """
    path = Path(path).expanduser()
    text = read_text(path)
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        return list(_lines(text, path))
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON, {error}. Use a JSON file, or .jsonl for lines.") from error


def read_text(path: str | Path) -> str:
    """Reads a text file.

    Raises:
        UserError: the file is missing or is not UTF-8.
    """
    path = Path(path).expanduser()
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError(f"{path}: {reason}. Check the path.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}. Use UTF-8 text.") from error


def read_records(path: str | Path) -> list[dict[str, Any]]:
    """Reads a list of objects from JSON or JSON lines.

    Raises:
        UserError: the file holds something else; the first offending item is named.
    """
    rows = read_json(path)
    if not isinstance(rows, list):
        raise UserError(f"{path}: holds a {type(rows).__name__}. Use a list of objects, or .jsonl.")
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise UserError(f"{path}: item {number} is {str(row)[:60]!r}. Use an object with named fields.")
    return rows


def field_of(row: dict[str, Any], names: tuple[str, ...], place: str) -> Any:
    """The first of several fields that a record has.

    Args:
        row: the record.
        names: the field's possible names.
        place: for the message.

    Raises:
        UserError: it has none of them.
    """
    for name in names:
        if row.get(name) is not None:
            return row[name]
    raise UserError(
        f"{place}: {str(row)[:80]!r} has none of the fields {', '.join(names)}. Use one of these names."
    )


def write_json(path: str | Path, content: Any) -> None:
    """Writes a JSON file, making its folder.

    Raises:
        UserError: the file cannot be written.
    """
    _write(Path(path).expanduser(), json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_lines(path: str | Path, rows: list[dict[str, Any]]) -> None:
    """Writes JSON lines, making the file's folder.

    Raises:
        UserError: the file cannot be written.
    """
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    _write(Path(path).expanduser(), text)


def _write(path: Path, text: str) -> None:
    """Writes a text file, whole or not at all."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file():  # a terminal or a pipe cannot be replaced
            path.write_text(text, encoding="utf-8")
            return
        part = path.with_name(f"{path.name}.part")
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError(f"{path}: {reason}. Choose a place that can be written.") from error


def _lines(text: str, path: Path) -> Iterator[Any]:
    """The value of every line that is not empty."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield json.loads(line)
            except (json.JSONDecodeError, RecursionError) as error:
                raise UserError(
                    f"{path}:{number}: {line[:40]!r} is not valid JSON ({error}). Use one value per line."
                ) from error
