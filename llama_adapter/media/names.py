"""The names by which media come in records: one table, for training, evaluation and generation alike.

A column may be clear by its name (``image_path``), by its value (``file_name``, ``depth``) or with a pattern
only (``image_id``). A list of content parts names its media by type. Every function says which keys it used,
so that a reader can account for the others. Whether a file is there is not asked here, and none is opened.
"""

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from llama_adapter.errors import UserError
from llama_adapter.media.item import MODALITIES, MediaItem


def _columns(modality: str, *stems: str, also: tuple[str, ...] = ()) -> dict[str, str]:
    """The usual columns of one modality: each stem alone, in plural, and as a path, file or address."""
    endings = ("", "s", "_path", "_paths", "_file", "_files", "_url", "_urls")
    return dict.fromkeys((*(stem + end for stem in stems for end in endings), *also), modality)


COLUMNS: dict[str, str] = {
    **_columns("image", "image", "img", also=("imgname", "img_name", "image_name")),
    **_columns("audio", "audio"),
    **_columns("video", "video"),
    **_columns("point", "point_cloud", "pointcloud"),
}
"""Column -> modality of what it names, whatever its value looks like."""

IF_A_FILE: dict[str, str] = {
    **dict.fromkeys(("picture", "photo"), "image"),
    **dict.fromkeys(("sound", "wav"), "audio"),
    **dict.fromkeys(("depth", "depth_map"), "depth"),
    **dict.fromkeys(("thermal", "infrared"), "thermal"),
    **dict.fromkeys(("imu",), "imu"),
    **dict.fromkeys(("point", "points"), "point"),
}
"""Columns with another use besides: they name media where their value is the name of a file."""

BY_SUFFIX = ("file_name", "file_path", "filename", "media", "media_path", "medias")
"""Columns whose modality follows from the file's suffix; with another suffix they are no media."""

IDENTIFIERS = ("image_id", "imageId", "img_id")
"""Columns that tell images apart and name a file only with a pattern."""

SUFFIXES: dict[str, str] = {
    **dict.fromkeys(("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm"), "image"),
    **dict.fromkeys(("wav", "mp3", "flac", "ogg", "m4a", "opus", "aac"), "audio"),
    **dict.fromkeys(("mp4", "mkv", "avi", "mov", "webm", "m4v", "mpg", "mpeg", "3gp"), "video"),
    **dict.fromkeys(("ply", "pcd", "off"), "point"),
}
"""Suffix of a file -> its modality."""

PARTS: dict[str, str] = {
    kind: modality
    for modality in ("image", "audio", "video")
    for kind in (modality, f"{modality}_url", f"input_{modality}")
} | {modality: modality for modality in ("depth", "thermal", "imu", "point")}
"""``type`` of a content part -> modality."""

CONTENT_KEYS = ("path", "url", "file", "source", "data", "base64", "bytes")
"""Where a part or an object holds its medium, besides the key named as its type or modality."""

MARKS = {"<image>": "image", "<audio>": "audio", "<video>": "video"}
"""What marks in a text that a medium stands there, as LLaVA data and LLaMA-Factory's write it."""

_MARK = re.compile("|".join(map(re.escape, MARKS)))
_BASE64_SIGNATURES = ("iVBORw0KGgo", "/9j/", "R0lGOD", "UklGR")
"""How PNG, JPEG, GIF and RIFF files begin in base64: a text that does is no path."""
_DATA_ADDRESS = re.compile(r"data:[\w.+/;=-]*;base64,", re.IGNORECASE)
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)


@dataclass(frozen=True)
class FoundMedia:
    """What a row names beside its text."""

    items: tuple[MediaItem, ...] = ()
    """In the order of ``MODALITIES``, within one as they are listed."""
    keys: frozenset[str] = frozenset()
    """The row's keys that were read, those that name the same medium again included."""


def marks_in(text: str) -> list[str]:
    """Modalities of the marks in a text, in their order."""
    return [MARKS[mark] for mark in _MARK.findall(text)]


def names_media(column: str) -> bool:
    """Whether a column of this name may hold media, or their numbers."""
    known = (COLUMNS, IF_A_FILE, BY_SUFFIX, IDENTIFIERS, ("inputs",))
    return any(column in names for names in known)


def find_media(row: Mapping[str, Any], pattern: str | None = None) -> FoundMedia:
    """Find all media that a row names by its columns.

    Args:
        row: a record, or one message of it.
        pattern: file name of an image that the row gives only the number of, with columns in braces:
            ``COCO_train2014_{image_id:012d}.jpg``. Used where no column names an image.

    Returns:
        The media, and the keys that were read for them.

    Raises:
        UserError: a value is no medium, two columns name different media of one modality, or the pattern does
            not fit the row.
    """
    named: dict[str, dict[str, list[MediaItem]]] = {}
    for column, modality in _media_columns(row):
        if items := _items(modality, row[column], column):
            named.setdefault(modality, {})[column] = items
    if pattern and "image" not in named:
        named["image"] = {"": [MediaItem("image", _named_after(pattern, row))]}
    inputs = _inputs(row)
    items = [one for modality in MODALITIES for one in _one_of(modality, named.get(modality, {}))]
    keys = {key for columns in named.values() for key in columns if key}
    keys |= {"inputs"} if row.get("inputs") is not None else set()
    if "image" in named:
        keys |= set(IDENTIFIERS) & set(row)
    return FoundMedia((*items, *inputs), frozenset(keys))


def part_modality(part: Mapping[str, Any]) -> str | None:
    """Modality of a content part by its ``type``; None for one of another kind, such as a text."""
    kind = part.get("type")
    return PARTS.get(kind) if isinstance(kind, str) else None


def part_media(part: Mapping[str, Any]) -> FoundMedia:
    """The medium of a content part such as ``{"type": "image", "path": "a.jpg"}``.

    Args:
        part: whose type is of ``PARTS``.

    Returns:
        One item; its content is None where the part only says that a medium stands there.

    Raises:
        UserError: what it holds is no medium, or it holds several.
    """
    kind, modality = part["type"], PARTS[part["type"]]
    places = dict.fromkeys((kind, modality, f"{modality}_url", *CONTENT_KEYS))
    held = [key for key in places if key in part and part[key] not in (None, "", [])]
    items = [one for key in held for one in _items(modality, _held(part, key), f"{kind} part")]
    if len(items) > 1 and any(one != items[0] for one in items):
        raise UserError(f"A part of type {kind!r} names {len(items)} media. Use a part for each.")
    found = items[0] if items else MediaItem(modality, None)
    return FoundMedia((found,), frozenset({"type", *held}))


def _held(part: Mapping[str, Any], key: str) -> Any:
    """What a part holds under a key, as an object where the key says how it is written."""
    return {key: part[key]} if key in ("data", "base64") else part[key]


def _media_columns(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The columns that hold media with their modality; doubtful ones only where no clear one does."""
    clear = {modality for column, modality in COLUMNS.items() if row.get(column) not in (None, "", [])}
    yield from ((column, modality) for column, modality in COLUMNS.items() if column in row)
    for column, modality in IF_A_FILE.items():
        if modality not in clear and _suffixes(row.get(column)):
            yield column, modality
    for column in BY_SUFFIX:
        kinds = {SUFFIXES.get(suffix) for suffix in _suffixes(row.get(column))}
        if len(kinds) == 1 and (kind := kinds.pop()) and kind not in clear:
            yield column, kind


def _suffixes(value: Any) -> list[str]:
    """Suffixes of file names; empty where the value is not made of such names."""
    names = value if isinstance(value, list) else [value]
    if not names or not all(isinstance(name, str) for name in names):
        return []
    suffixes = [PurePosixPath(name.strip()).suffix[1:].lower() for name in names]
    return suffixes if all(suffix.isalnum() for suffix in suffixes) else []


def _one_of(modality: str, named: dict[str, list[MediaItem]]) -> list[MediaItem]:
    """The items of one column; others may only say the same, or end in the same file name."""
    if not named:
        return []
    (column, items), *others = named.items()
    for other, again in others:
        if [_last_part(one) for one in items] != [_last_part(one) for one in again]:
            raise UserError(
                f"{column!r} and {other!r} name different media of the kind {modality} ({_shown(items)}; "
                f"{_shown(again)}). Use one of the columns, and leave the other out of the record."
            )
    return items


def _last_part(item: MediaItem) -> Any:
    """A file's own name, without its folder."""
    return PurePosixPath(item.content).name if isinstance(item.content, str) else item.content


def _shown(items: list[MediaItem]) -> str:
    return ", ".join(str(item.content)[:40] for item in items)


def _items(modality: str, value: Any, key: str) -> list[MediaItem]:
    """The media of one value: a path, an object with one, or a list of such."""
    if value is None or value in ("", []):
        return []
    if isinstance(value, list):
        return [MediaItem(modality, _content(one, key)) for one in value if one not in (None, "")]
    return [MediaItem(modality, _content(value, key))]


def _content(value: Any, key: str) -> Any:
    """What one value names: a path as text, or the file's bytes."""
    if isinstance(value, Mapping):
        held = [name for name in ("bytes", *PARTS, *CONTENT_KEYS) if value.get(name) is not None]
        if not held:
            found = ", ".join(map(repr, value)) or "nothing"
            raise UserError(f"{key!r} has an object with {found}. Use the path of a file.")
        inner = value[held[0]]
        return _decoded(inner, key) if held[0] in ("data", "base64") else _content(inner, key)
    if isinstance(value, bytes) and value:
        return value
    if not isinstance(value, str) or not value:
        found = f"{type(value).__name__} ({str(value)[:40]!r})"
        raise UserError(f"{key!r} holds {found}, which is no medium. Use the path of a file.")
    return _path_or_bytes(value, key)


def _path_or_bytes(value: str, key: str) -> str | bytes:
    """A path without its scheme, or the bytes that an address carries in itself."""
    if _DATA_ADDRESS.match(value) or (len(value) > 255 and value.startswith(_BASE64_SIGNATURES)):
        return _decoded(value, key)
    if value.startswith("file://"):
        return value.removeprefix("file://")
    if _ADDRESS.match(value):
        raise UserError(f"{key!r} is the address {value[:80]!r}. Download the file and use its path.")
    return value


def _decoded(text: Any, key: str) -> bytes:
    """Bytes written in base64.

    Raises:
        UserError: they are not.
    """
    if isinstance(text, bytes) and text:
        return text
    try:
        address = _DATA_ADDRESS.match(text)
        return base64.b64decode(text[address.end() if address else 0 :], validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        raise UserError(
            f"{key!r} holds data that are no base64 ({error}). Use the path of a file."
        ) from error


def _named_after(pattern: str, row: Mapping[str, Any]) -> str:
    """The pattern with the row's values.

    Raises:
        UserError: the row lacks a column of it, or has another kind of value there.
    """
    try:
        return pattern.format(**row)
    except (LookupError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"The image cannot be named after {pattern!r}: {type(error).__name__} {error}. Use columns that "
            "every record has."
        ) from error


def _inputs(row: Mapping[str, Any]) -> list[MediaItem]:
    """The column ``inputs``: modality -> files or texts, each with or without a weight.

    Raises:
        UserError: it is something else.
    """
    given = row.get("inputs")
    if given is None:
        return []
    known = isinstance(given, Mapping) and set(given) <= set(MODALITIES)
    held = {name: value for name, value in given.items() if value is not None} if known else {}
    found = {name: value if isinstance(value, list) else [value] for name, value in held.items()}
    shown = repr(given)[:80]
    if not known or not all(isinstance(one, str) for values in found.values() for one in values):
        raise UserError(f"inputs is {shown}. Use files or texts under some of {MODALITIES}.")
    return [MediaItem(name, one) for name in MODALITIES for one in found.get(name, [])]
