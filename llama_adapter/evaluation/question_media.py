"""What is shown with a question: files that its record names, or that are named after its picture's id.

The names by which records carry media are those of ``llama_adapter.media``. Ids become names of files as
COCO, GQA and TextVQA have them (`COCO_val2014_000000000042.jpg`, `000000000042.jpg`, `42.jpg`), or by a
pattern; they are looked up in a folder and the folders in it. No file is opened.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from llama_adapter.errors import UserError
from llama_adapter.evaluation.joining import IMAGE_ID_FIELDS
from llama_adapter.evaluation.values import key_text, listed
from llama_adapter.media import MediaItem, find_media, read_input

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")
"""Of files that are named after an id."""
COCO_PARTS = ("train2014", "val2014", "test2014", "test2015", "train2017", "val2017", "test2017")
"""Parts of COCO, as they stand in names of files."""


@dataclass(frozen=True)
class MediaFinder:
    """Finds what is shown with questions."""

    folder: str | None = None
    """Where files lie; None for where the names say, or beside the records."""
    beside: Path = Path()
    """The folder of the records."""
    pattern: str | None = None
    """Name of a picture's file, with fields of the record in braces."""
    field: str | None = None
    """The field that names pictures; the usual ones where it is None."""

    def find(
        self, record: Mapping[str, Any], place: str, parts: Sequence[str] = ("",)
    ) -> tuple[MediaItem, ...]:
        """The media of one record.

        Args:
            record: of the question.
            place: for messages.
            parts: folders inside of the folder in which to look.

        Returns:
            Media whose content is the path of a file, a text, or the bytes of a picture; the name that the
            record gives where there is no such file.

        Raises:
            UserError: a medium has no name, or an id names two files.
        """
        named = record if self.field is None else {"image": record.get(self.field)}
        try:
            items = find_media(named, self.pattern).items
        except UserError as error:
            raise UserError(f"{place}: {error}") from error
        found = [self._resolved(item, place, parts) for item in items]
        number = next((record[name] for name in IMAGE_ID_FIELDS if record.get(name) is not None), None)
        if number is None or self.field is not None or items:
            return tuple(found)
        name = key_text(number, f"{place}: the id of the picture")
        return (MediaItem("image", self._by_id(name, place) or name),)

    def _resolved(self, item: MediaItem, place: str, parts: Sequence[str]) -> MediaItem:
        """An item with its file, if it is there."""
        if not isinstance(item.content, str):
            return item
        folders = [Path(self.folder).expanduser()] if self.folder else [Path(), self.beside]
        for folder in folders:
            for part in parts:
                with suppress(UserError):
                    return read_input(item.modality, item.content, folder / part)
        file = self._by_id(item.content, place) if item.modality == "image" else None
        return item if file is None else MediaItem("image", file)

    def _by_id(self, name: str, place: str) -> str | None:
        """The file that is named after an id.

        Raises:
            UserError: there are two.
        """
        found = [self._here[file] for file in _names(name) if file in self._here] if self.folder else []
        if len(found) > 1:
            raise UserError(
                f"{place}: the picture {name!r} may be any of {listed(map(str, found))}. "
                "Use --media-name with a pattern such as COCO_val2014_{image_id:012d}.jpg."
            )
        return str(found[0]) if found else None

    @cached_property
    def _here(self) -> dict[str, Path]:
        """Name -> file, of all in the folder and the folders in it."""
        root = Path(self.folder or "").expanduser()
        if not root.is_dir():
            raise UserError(f"images is {self.folder!r}, which is no folder. Use the one with the pictures.")
        inner = sorted(path for path in root.iterdir() if path.is_dir())
        return {path.name: path for folder in (*inner, root) for path in folder.iterdir()}


def alone(media: Sequence[MediaItem]) -> str | None:
    """The file, where a question comes with one picture and nothing else: what any model that sees takes."""
    if len(media) != 1 or media[0].modality != "image" or media[0].weight != 1:
        return None
    return media[0].content if isinstance(media[0].content, str) else None


def is_there(item: MediaItem) -> bool:
    """Whether an item can be shown: it is a text, has its bytes, or names a file that is there."""
    if item.modality == "text" or not isinstance(item.content, str):
        return item.content is not None
    return Path(item.content).is_file()


def _names(name: str) -> Iterator[str]:
    """Names of files for an id."""
    stems = [name]
    if name.isascii() and name.isdigit():
        padded = f"{int(name):012d}"
        stems = [name, padded, *(f"COCO_{part}_{padded}" for part in COCO_PARTS)]
    for stem in dict.fromkeys(stems):
        yield from (stem + suffix for suffix in SUFFIXES)
