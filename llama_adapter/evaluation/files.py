"""Reads the JSON and JSON-lines files that evaluations use, with errors that name the file and the line.

Light on purpose: no `datasets`, no torch, so that scoring starts at once. It does not know what a record
means.
"""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llama_adapter.errors import UserError
from llama_adapter.evaluation.values import brief


def read_json(path: str | Path) -> Any:
    """Reads a JSON file, or JSON lines as a list.

    Args:
        path: the file; `.jsonl` and `.ndjson` hold a value per line; others too where they are no
            single value.

    Raises:
        UserError: the file cannot be read or is not JSON; an object has a key twice.
    """
    path = Path(path).expanduser()
    text = read_text(path)
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        return list(_lines(text, path))
    try:
        return _decode(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and text.count("\n", 0, error.pos) == 1:
            return list(_lines(text, path))
        raise _invalid(path, error) from error
    except (ValueError, RecursionError) as error:
        raise _invalid(path, error) from error


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
    except ValueError as error:
        raise UserError(f"{str(path)!r} names no file: {error}. Check the path.") from error


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
            raise UserError(f"{path}: item {number} is {brief(row)}. Use an object with named fields.")
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
        f"{place}: {brief(row)} has none of the fields {', '.join(names)}. Use one of these names."
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


def _decode(text: str) -> Any:
    """One JSON value.

    Raises:
        ValueError: it is none, an object has a key twice, or a text is not made of characters.
        RecursionError: it is nested too deeply.
    """
    value = json.loads(text, object_pairs_hook=_object)
    if "\\ud" in text.lower():  # half of a pair of surrogates is no character, and cannot be written again
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"half a surrogate pair, \\u{ord(error.object[error.start]):04x}") from None
    return value


def _invalid(path: Path, error: Exception) -> UserError:
    """What to say of a file that is no JSON."""
    return UserError(f"{path}: not valid JSON, {_why(error)}. Use a JSON file, or .jsonl for lines.")


def _why(error: Exception) -> str:
    """What was wrong, without Python's advice to programmers."""
    return str(error).partition(";")[0]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; of a key that comes twice `json` would keep the last value in silence."""
    found = dict(pairs)
    if len(found) < len(pairs):
        counted = Counter(key for key, _ in pairs)
        raise ValueError(f"the key {max(counted, key=counted.__getitem__)!r} occurs twice")
    return found


def _lines(text: str, path: Path) -> Iterator[Any]:
    """The value of every line that is not empty."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield _decode(line)
            except (ValueError, RecursionError) as error:
                raise UserError(
                    f"{path}:{number}: {line[:40]!r} is not valid JSON ({_why(error)}). "
                    "Use one value per line."
                ) from error
