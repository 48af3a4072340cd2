"""Which pictures a cache is made of: those of a folder, of a list, or in tar files (WebDataset).

Only names and places are kept, in a fixed order; contents are read when their turn comes. Tar files are not
unpacked: a first pass over their headers notes where each picture begins. What is unusual: a picture's name
is enough to find it again (``open_picture``), so a search needs no listing.
"""

import io
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_adapter.errors import UserError
from llama_adapter.file_formats.damage import decoding

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")
FEATURES = (".npy", ".safetensors", ".pt")


@dataclass(frozen=True)
class Place:
    """Where a picture lies."""

    name: str
    """As seen from the listing's root; in a tar file ``ARCHIVE.tar/MEMBER``."""
    offset: int = -1
    """In the tar file; below 0 for a file of its own."""
    size: int = 0
    """Bytes in the tar file."""


class NamedBytes(io.BytesIO):
    """Bytes that errors call by their name."""

    def __init__(self, content: bytes, name: str) -> None:
        super().__init__(content)
        self.name = name

    def __repr__(self) -> str:
        """The name, also for ``str``."""
        return self.name


@dataclass(frozen=True)
class Listing:
    """Pictures in a fixed order."""

    root: Path
    """What names are relative to."""
    places: list[Place]
    """One per picture."""

    def open(self, number: int) -> NamedBytes:
        """A picture's file."""
        place = self.places[number]
        if place.offset < 0:
            return NamedBytes((self.root / place.name).read_bytes(), place.name)
        archive, _ = _split(place.name)
        with (self.root / archive).open("rb") as file:
            file.seek(place.offset)
            return NamedBytes(file.read(place.size), place.name)


def listing(source: Path) -> Listing:
    """The pictures of a folder (and those below it), a list, a tar file, or a folder of tar files.

    Raises:
        UserError: there are none, or the source cannot be read.
    """
    if source.is_dir():
        files = sorted(str(path.relative_to(source)) for path in source.rglob("*") if path.is_file())
        places = [Place(name) for name in files if name.lower().endswith(PICTURES)]
        places = places or [
            place for name in files if name.endswith(".tar") for place in _members(source, name)
        ]
        found = Listing(source, places)
    elif source.suffix == ".tar":
        found = Listing(source.parent, _members(source.parent, source.name))
    else:
        found = Listing(source.parent, [Place(line) for line in _lines(source)])
    if not found.places:
        raise UserError(
            f"{str(source)!r} holds no pictures. Use a folder of {', '.join(PICTURES)}, a text file with "
            "one path per line, or .tar files with pictures."
        )
    return found


def open_picture(root: Path, name: str) -> NamedBytes:
    """A picture by its name in a listing.

    Raises:
        UserError: it is not there any more.
    """
    path = root / name
    with decoding(f"{root}/{name}", "a picture of the cache", "Restore it."):
        if path.is_file():
            return NamedBytes(path.read_bytes(), name)
        archive, member = _split(name)
        with tarfile.open(root / archive, "r:") as tar:
            file: Any = tar.extractfile(member)
            return NamedBytes(file.read(), name)


def _lines(source: Path) -> list[str]:
    """A list's paths."""
    remedy = (
        "Use a folder, a text file with one path per line, a .tar file, or features in "
        f"{', '.join(FEATURES)}."
    )
    with decoding(source, "a list of pictures", remedy):
        lines = source.read_text(encoding="utf-8-sig").split("\n")  # names may hold other ends of lines
    return [line.strip() for line in lines if line.strip()]


def _members(root: Path, archive: str) -> list[Place]:
    """The pictures of one tar file.

    Raises:
        UserError: it is no tar file, or ends before its end; tarfile itself takes a damaged header for it.
    """
    remedy = "Use whole .tar files, not compressed."
    with decoding(root / archive, "a tar file", remedy):
        with tarfile.open(root / archive, "r:") as tar:
            places = [
                Place(f"{archive}/{member.name}", member.offset_data, member.size)
                for member in tar
                if member.isfile() and member.name.lower().endswith(PICTURES)
            ]
            end = tar.offset
        with (root / archive).open("rb") as file:
            file.seek(end)
            if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
                raise ValueError(f"the header at byte {end:,} is damaged")
    return places


def _split(name: str) -> tuple[str, str]:
    """Archive and member."""
    archive, dot, member = name.partition(".tar/")
    if not dot:
        raise UserError(f"The picture {name!r} is not there. Restore it, or build the cache again.")
    return f"{archive}.tar", member
