"""Typed access to the values of one row: texts, lists of objects, roles.

Formats are built from these. Every reason says what was found and what it must be.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llama_adapter.data.records import RecordProblem, Turn, brief
from llama_adapter.media import MediaItem

Row = dict[str, Any]


@dataclass
class Parsed:
    """What a format makes of one row, before anything is checked."""

    turns: list[Turn] = field(default_factory=list)
    """The conversation."""
    media: list[MediaItem] = field(default_factory=list)
    """Media inside of the conversation or named in the format's own way, in the order of their marks. An item
    without content stands for the next that the row names."""
    read: set[str] = field(default_factory=set)
    """Keys of the row that were read besides those the format declares; they name no further media."""
    unread: list[str] = field(default_factory=list)
    """Keys inside of messages that were not read."""
    lacks: str = ""
    """Why there is no answer to learn; the question alone can be asked."""


def sound_text(value: str, key: str) -> str:
    """Return the text if UTF-8 can hold it; half a surrogate pair marks a byte that could not be decoded."""
    if value.isascii():
        return value
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        code = ord(value[error.start])
        if 0xDC80 <= code <= 0xDCFF:
            raise RecordProblem(
                f"{key!r} must be UTF-8, but has the byte 0x{code - 0xDC00:02x} at character {error.start}"
            ) from None
        raise RecordProblem(
            f"{key!r} must be characters, but has half a surrogate pair, \\u{code:04x}"
        ) from None
    return value


def text_of(row: Row, key: str) -> str:
    """The text under a key that must be there.

    Args:
        row: the row or a part of it.
        key: which column.

    Returns:
        The text, possibly empty.

    Raises:
        RecordProblem: the key is missing, or its value is no text.
    """
    if key not in row:
        found = ", ".join(repr(name) for name in row) or "none"
        raise RecordProblem(f"the key {key!r} is missing; it must be there (found: {found})")
    value = row[key]
    if not isinstance(value, str):
        raise RecordProblem(f"{key!r} is {type(value).__name__} ({brief(value)!r}); it must be text")
    return sound_text(value, key)


def optional_text(row: Row, key: str) -> str:
    """The text under a key that may be missing or null; then empty."""
    return text_of(row, key) if row.get(key) is not None else ""


def list_of(row: Row, key: str) -> list[Row]:
    """The list of objects under a key that must be there.

    Args:
        row: the row.
        key: which column.

    Returns:
        The objects.

    Raises:
        RecordProblem: the key is missing, or its value is no list of objects.
    """
    value = row[key] if key in row else text_of(row, key)
    if isinstance(value, tuple):
        value = list(value)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        found = f"{type(value).__name__} ({brief(value)!r})"
        raise RecordProblem(f"{key!r} is {found}; it must be a list of objects")
    return value


def known_role(name: str, known: Mapping[str, str], number: int) -> str:
    """Translate a role name."""
    if name not in known:
        raise RecordProblem(f"turn {number} has the unknown role {name!r}; use one of: {', '.join(known)}")
    return known[name]


def listed(value: Any) -> list[Any]:
    """A value that may be missing, single or a list, as a list."""
    if value is None or value == "":
        return []
    return value if isinstance(value, list) else [value]


def filled(row: Row) -> set[str]:
    """The keys that hold something: tables give every row all columns, most of them empty."""
    return {key for key, value in row.items() if not (value is None or value in ("", [], {}))}
