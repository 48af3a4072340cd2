"""Record formats: small functions that turn one row into turns, each registered with the columns it is known by.

A reader sees one row as a dict and knows nothing of files. It raises ``RecordProblem`` with the reason; it never guesses. A new
format is one function and one ``register_format`` line; the order of registration is the order of detection.
"""

import difflib
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from llama_adapter.data.records import MEDIA_PLACEHOLDER, RawRow, Record, RecordProblem, Turn, checked_turns
from llama_adapter.errors import UserError

Row = dict[str, Any]
RowReader = Callable[[Row, str], list[Turn]]
"""Takes a row and its ``record_id``; returns the turns."""

SHAREGPT_ROLES = {
    "system": "system",
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "bard", "bing", "model"), "assistant"),
}
MESSAGE_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
CAPTION_INSTRUCTION = "Generate caption of this image"
"""The fixed instruction of the published captioning recipe."""
MEDIA_COLUMNS = ("image", "images", "url")


@dataclass(frozen=True)
class Format:
    """One known layout of a record."""

    name: str
    """What ``SourceConfig.format`` calls it."""
    needs: tuple[str, ...]
    """Columns a file must have to be detected; ``a|b`` means one of the two."""
    read: RowReader
    """Turns one row into a conversation."""

    def matches(self, columns: set[str]) -> bool:
        """Whether a file with these columns looks like this format."""
        return all(columns & set(need.split("|")) for need in self.needs)


FORMATS: dict[str, Format] = {}
"""Name -> format, in the order of detection."""


def register_format(name: str, *needs: str) -> Callable[[RowReader], RowReader]:
    """Make a record format known; use as a decorator on its reader.

    Args:
        name: what ``SourceConfig.format`` calls it.
        *needs: the columns it is detected by; ``a|b`` means one of the two.

    Returns:
        The decorator, which leaves the reader as it is.
    """

    def keep(read: RowReader) -> RowReader:
        FORMATS[name] = Format(name, needs, read)
        return read

    return keep


def known_formats() -> str:
    """The formats with their columns, for messages."""
    return "; ".join(f"{form.name} ({', '.join(form.needs)})" for form in FORMATS.values())


def detect_format(columns: Iterable[str], place: str) -> Format:
    """Find the format a file is written in by its columns.

    Args:
        columns: the names found.
        place: the file, for the message.

    Returns:
        The first registered format whose columns are all there.

    Raises:
        UserError: no format matches.
    """
    found = set(columns)
    for form in FORMATS.values():
        if form.matches(found):
            return form
    raise UserError(
        f"{place} has the columns {', '.join(sorted(found))}, which is no known format. Set columns to say which is which, "
        f"for example {{instruction: question, output: answer}}; known formats: {known_formats()}."
    )


def named_format(name: str) -> Format:
    """Look up a format by name.

    Args:
        name: as in ``SourceConfig.format``.

    Returns:
        The format.

    Raises:
        UserError: there is none of that name.
    """
    if name in FORMATS:
        return FORMATS[name]
    close = difflib.get_close_matches(name, FORMATS, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise UserError(f"format is {name!r}.{hint} Use auto or one of: {', '.join(FORMATS)}.")


def _sound(value: str, key: str) -> str:
    """Return the text if UTF-8 can hold it; half a surrogate pair marks a byte that could not be decoded."""
    if value.isascii():
        return value
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        code = ord(value[error.start])
        if 0xDC80 <= code <= 0xDCFF:
            raise RecordProblem(f"{key!r} is not valid UTF-8: byte 0x{code - 0xDC00:02x} at character {error.start}") from None
        raise RecordProblem(f"{key!r} holds half a surrogate pair, \\u{code:04x}, which is no character") from None
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
        raise RecordProblem(f"the key {key!r} is missing (found: {found})")
    value = row[key]
    if not isinstance(value, str):
        raise RecordProblem(f"{key!r} is {type(value).__name__} ({str(value)[:40]!r}), not text")
    return _sound(value, key)


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
        raise RecordProblem(f"{key!r} is {type(value).__name__} ({str(value)[:40]!r}), not a list of objects")
    return value


def _role(name: str, known: dict[str, str], number: int) -> str:
    """Translate a role name."""
    if name not in known:
        raise RecordProblem(f"turn {number} has the unknown role {name!r} (known: {', '.join(known)})")
    return known[name]


def _content(message: Row) -> str:
    """The text of a message whose content is text or a list of typed parts."""
    if not isinstance(message.get("content"), list):
        return text_of(message, "content")
    text = ""
    for part in list_of(message, "content"):
        kind = text_of(part, "type")
        if kind not in ("text", "image", "image_url"):
            raise RecordProblem(f"a message part has the unknown type {kind!r} (known: text, image, image_url)")
        text += text_of(part, "text") if kind == "text" else MEDIA_PLACEHOLDER
    return text


def message_turns(messages: list[Row]) -> list[Turn]:
    """Turns of a list of ``{"role": ..., "content": ...}``.

    Args:
        messages: the list.

    Returns:
        One turn per message.

    Raises:
        RecordProblem: a key is missing, a value is no text, or a role is unknown.
    """
    return [
        Turn(_role(text_of(message, "role"), MESSAGE_ROLES, number), _content(message))
        for number, message in enumerate(messages, start=1)
    ]


@register_format("sharegpt", "conversations")
@register_format("llava", "conversations", "image|images")  # the lower decorator registers first
def read_conversations(row: Row, record_id: str) -> list[Turn]:
    """Turns of ``conversations``, a list of ``{"from": ..., "value": ...}``; some publish ``role`` and ``content`` there."""
    system = optional_text(row, "system")
    turns = [Turn("system", system)] if system else []
    items = list_of(row, "conversations")
    if items and "role" in items[0]:
        return turns + message_turns(items)
    for number, item in enumerate(items, start=1):
        turns.append(Turn(_role(text_of(item, "from"), SHAREGPT_ROLES, number), text_of(item, "value")))
    return turns


@register_format("messages", "messages")
def read_messages(row: Row, record_id: str) -> list[Turn]:
    """Turns of ``messages``, a list of ``{"role": ..., "content": ...}``."""
    return message_turns(list_of(row, "messages"))


@register_format("alpaca", "instruction", "output")
def read_alpaca(row: Row, record_id: str) -> list[Turn]:
    """Instruction, optional input, output; optional ``system`` and ``history`` (pairs of question and answer)."""
    system, history = optional_text(row, "system"), row.get("history") or []
    turns = [Turn("system", system)] if system else []
    for pair in history:
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise RecordProblem(f"'history' holds {str(pair)[:40]!r}, not a pair of question and answer")
        turns += [Turn("user", _sound(pair[0], "history")), Turn("assistant", _sound(pair[1], "history"))]
    instruction = text_of(row, "instruction")
    if not instruction.strip():
        raise RecordProblem("'instruction' is empty")
    return [*turns, Turn("user", instruction, optional_text(row, "input")), Turn("assistant", text_of(row, "output"))]


@register_format("prompt_completion", "prompt", "completion")
def read_prompt_completion(row: Row, record_id: str) -> list[Turn]:
    """Prompt and completion, each a text or a list of messages."""
    if isinstance(row.get("prompt"), list):
        return message_turns(list_of(row, "prompt") + list_of(row, "completion"))
    return [Turn("user", text_of(row, "prompt")), Turn("assistant", text_of(row, "completion"))]


@register_format("captions", "caption", "url|image")
def read_caption(row: Row, record_id: str) -> list[Turn]:
    """A caption of an image; of several captions one is chosen by the record's place, so always the same."""
    caption = row.get("caption")
    if isinstance(caption, list) and caption:
        row = {"caption": caption[zlib.crc32(record_id.encode("utf-8", "replace")) % len(caption)]}
    return [Turn("user", CAPTION_INSTRUCTION), Turn("assistant", text_of(row, "caption"))]


def _media_path(item: Any) -> str:
    """The path of one medium, given as text or as the image feature of ``datasets``."""
    if isinstance(item, dict) and item.get("bytes") is None:
        item = item.get("path")
    if not isinstance(item, str) or not item:
        raise RecordProblem(f"an image is {type(item).__name__}, not a path; write images to files and name them")
    return _sound(item, "image")


def _media(row: Row, turns: list[Turn], detected: str) -> list[str]:
    """Paths of a record's media, checked against the placeholders in its turns."""
    columns = MEDIA_COLUMNS if detected == "captions" else MEDIA_COLUMNS[:2]
    items = [item for key in columns if row.get(key) for item in (row[key] if isinstance(row[key], list) else [row[key]])]
    if detected == "messages":
        items += _inline_images(row)
    media = [_media_path(item) for item in items]
    marked = sum(turn.full_text.count(MEDIA_PLACEHOLDER) for turn in turns)
    if media and marked not in (0, len(media)):
        raise RecordProblem(f"the record names {len(media)} images, but {MEDIA_PLACEHOLDER} occurs {marked} times")
    return media


def _inline_images(row: Row) -> list[Any]:
    """Images named inside message parts, in order."""
    parts = [part for message in row["messages"] if isinstance(message["content"], list) for part in message["content"]]
    images = [part.get("image", part.get("image_url")) for part in parts if part["type"] != "text"]
    return [image.get("url", image) if isinstance(image, dict) else image for image in images if image]


def read_record(form: Format, raw: RawRow, columns: dict[str, str]) -> Record:
    """Turn one row into the canonical record.

    Args:
        form: how the row is laid out.
        raw: the row as its container handed it on.
        columns: other names for columns, ``expected: yours``.

    Returns:
        The record.

    Raises:
        RecordProblem: the row is not usable; the message says why.
    """
    if raw.problem:
        raise RecordProblem(raw.problem)
    row = rename(raw.row, columns)
    turns = form.read(row, raw.record_id)
    return Record(raw.record_id, checked_turns(turns), _media(row, turns, form.name))


def rename(row: Row, columns: dict[str, str]) -> Row:
    """Give the columns of a row the names a format expects.

    Args:
        row: as read.
        columns: ``expected: yours``.

    Returns:
        The row under the expected names; columns not mentioned keep theirs.
    """
    if not columns:
        return row
    named = {expected: row[yours] for expected, yours in columns.items() if yours in row}
    return {key: value for key, value in row.items() if key not in columns.values()} | named
