"""Media that come inside of a record become files, so that everything behind knows paths alone.

A file is called by its content: the same medium is written once, and a record names the same file in every
run. What kind of file it is follows from its first bytes.
"""

import hashlib
import os
from pathlib import Path

from llama_adapter.errors import UserError
from llama_adapter.media.item import MediaItem

_SIGNATURES = {
    b"\x89PNG": ".png",
    b"\xff\xd8\xff": ".jpg",
    b"GIF8": ".gif",
    b"BM": ".bmp",
    b"II*\0": ".tif",
    b"MM\0*": ".tif",
    b"fLaC": ".flac",
    b"OggS": ".ogg",
    b"ID3": ".mp3",
    b"\xff\xfb": ".mp3",
    b"\x1aE\xdf\xa3": ".mkv",
}
"""How files begin -> their suffix."""
_CONTAINERS = {b"WEBP": ".webp", b"WAVE": ".wav", b"AVI ": ".avi"}
"""The same of RIFF files, whose kind stands behind their length."""


def as_file(item: MediaItem, folder: Path, kept: Path) -> str:
    """The file of a medium.

    Args:
        item: whose content is a path, or the bytes of a file.
        folder: relative paths start here.
        kept: where bytes are written.

    Raises:
        UserError: the path holds what no file name can hold.
    """
    if isinstance(item.content, bytes):
        return str(_written(item.content, kept))
    try:
        item.content.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(
            f"The {item.modality} {item.content!r} is no UTF-8. Use the name of a file."
        ) from error
    if "\0" in item.content:
        raise UserError(f"The {item.modality} {item.content!r} has a zero byte. Use the name of a file.")
    return str(folder / item.content)


def _written(content: bytes, kept: Path) -> Path:
    """The file with this content, written whole or not at all."""
    path = kept / (hashlib.sha256(content).hexdigest()[:32] + _suffix(content))
    if not path.is_file():
        kept.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        part.write_bytes(content)
        part.replace(path)
    return path


def _suffix(content: bytes) -> str:
    """The suffix that files which begin so have; none where it is not known."""
    if content.startswith(b"RIFF"):
        return _CONTAINERS.get(content[8:12], "")
    if content[4:8] == b"ftyp":
        return ".mp4"
    return next((suffix for start, suffix in _SIGNATURES.items() if content.startswith(start)), "")
