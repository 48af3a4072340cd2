"""Typed access to the values of one row: texts, lists of objects, messages and media.

Formats are built from these. Every reason says what was found and what it must be.
"""

from dataclasses import dataclass, field
from typing import Any

from llama_adapter.data.records import MEDIA_PLACEHOLDER, RecordProblem, Turn

Row = dict[str, Any]

MESSAGE_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
"""Role names of ``messages`` and what they mean here."""


@dataclass
class Parsed:
    """What a format makes of one row, before anything is checked."""

    turns: list[Turn] = field(default_factory=list)
    """The conversation."""
    media: list[Any] = field(default_factory=list)
    """Images as the row names them, in the order of their placeholders."""


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
        raise RecordProblem(f"{key!r} is {type(value).__name__} ({str(value)[:40]!r}); it must be text")
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
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        found = f"{type(value).__name__} ({str(value)[:40]!r})"
        raise RecordProblem(f"{key!r} is {found}; it must be a list of objects")
    return value


def known_role(name: str, known: dict[str, str], number: int) -> str:
    """Translate a role name."""
    if name not in known:
        raise RecordProblem(f"turn {number} has the unknown role {name!r}; use one of: {', '.join(known)}")
    return known[name]


def _content(message: Row) -> tuple[str, list[Any]]:
    """The text of a message whose content is text or a list of typed parts, and the images in it."""
    if not isinstance(message.get("content"), list):
        return text_of(message, "content"), []
    text, images = "", list[Any]()
    for part in list_of(message, "content"):
        kind = text_of(part, "type")
        if kind == "text":
            text += text_of(part, "text")
        elif kind in ("image", "image_url"):
            text += MEDIA_PLACEHOLDER
            images += listed(part.get(kind))
        else:
            raise RecordProblem(f"a message part has the type {kind!r}; it must be text, image or image_url")
    return text, images


def message_turns(messages: list[Row]) -> Parsed:
    """Read a list of ``{"role": ..., "content": ...}``.

    Args:
        messages: the list.

    Returns:
        One turn per message, and the images inside them.

    Raises:
        RecordProblem: a key is missing, a value is no text, or a role is unknown.
    """
    parsed = Parsed()
    for number, message in enumerate(messages, start=1):
        role = known_role(text_of(message, "role"), MESSAGE_ROLES, number)
        text, images = _content(message)
        parsed.turns.append(Turn(role, text))
        parsed.media += images
    return parsed


def listed(value: Any) -> list[Any]:
    """A value that may be missing, single or a list, as a list."""
    if value is None or value == "":
        return []
    return value if isinstance(value, list) else [value]


def _path(item: Any) -> str:
    """The path of one medium: text, an image of ``datasets``, or an ``image_url`` object."""
    if isinstance(item, dict) and item.get("bytes") is None:
        item = item.get("url", item.get("path"))
    if not isinstance(item, str) or not item:
        raise RecordProblem(f"an image is {type(item).__name__}, but must be a path; write images to files")
    return sound_text(item, "image")


def media_paths(parsed: Parsed) -> list[str]:
    """Paths of a record's media, checked against the placeholders in its turns.

    Args:
        parsed: what a format read.

    Returns:
        The paths, in the order of the placeholders.

    Raises:
        RecordProblem: an image is no path, or there are placeholders but not one per image.
    """
    paths = [_path(item) for item in parsed.media]
    marked = sum(turn.full_text.count(MEDIA_PLACEHOLDER) for turn in parsed.turns)
    if paths and marked not in (0, len(paths)):
        raise RecordProblem(
            f"the record names {len(paths)} images, but {MEDIA_PLACEHOLDER} occurs {marked} times; "
            "it must occur once per image or not at all"
        )
    return paths
