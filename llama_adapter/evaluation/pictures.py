"""Where the picture of a question is: a file that its record names, or that is named after its picture's id.

Ids become names as COCO, GQA and TextVQA have them (`COCO_val2014_000000000042.jpg`, `000000000042.jpg`,
`42.jpg`), or by a pattern; they are looked up in a folder and the folders in it. Pixels are not touched.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from llama_adapter.errors import UserError
from llama_adapter.evaluation.joining import IMAGE_FIELDS, IMAGE_ID_FIELDS
from llama_adapter.evaluation.values import brief, key_text, listed

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")
"""Of files that are named after an id."""
COCO_PARTS = ("train2014", "val2014", "test2014", "test2015", "train2017", "val2017", "test2017")
"""Parts of COCO, as they stand in names of files."""
_INSIDE = ("path", "url", "file_name", "image")
"""Under one of these an object names its file."""


@dataclass(frozen=True)
class Found:
    """The pictures of one question."""

    names: tuple[str, ...] = ()
    """As the record names them, an id as text."""
    files: tuple[str, ...] = ()
    """Where they are; as they are named where there is no such file."""
    inside: bool = False
    """Whether the record holds pixels instead of naming a file."""

    @property
    def any(self) -> bool:
        """Whether there is a picture, be it found or not."""
        return bool(self.names) or self.inside


@dataclass(frozen=True)
class Pictures:
    """Finds the pictures of records."""

    folder: str | None = None
    """Where they lie; None for where the names say, or beside the records."""
    beside: Path = Path()
    """The folder of the records."""
    pattern: str | None = None
    """Name of a file, with fields of the record in braces."""
    field: str | None = None
    """The field that names them; one of the usual ones where it is None."""

    def find(self, record: Mapping[str, Any], place: str, parts: Sequence[str] = ("",)) -> Found:
        """The pictures of one record.

        Args:
            record: of the question.
            place: for messages.
            parts: folders inside of the folder in which to look.

        Raises:
            UserError: a picture has no name, or an id names two files.
        """
        if self.pattern is not None:
            names = [_formatted(self.pattern, record, place)]
            return Found(tuple(names), tuple(self._file(name, parts) or name for name in names))
        fields = IMAGE_FIELDS if self.field is None else (self.field,)
        given = next((record[name] for name in fields if record.get(name) not in (None, "", [])), None)
        if given is not None:
            items = [_name(one, place) for one in (given if isinstance(given, list) else [given])]
            names = [name for name in items if name is not None]
            files = (self._file(name, parts) or self._by_id(name, place) or name for name in names)
            return Found(tuple(names), tuple(files), len(names) < len(items))
        number = next((record[name] for name in IMAGE_ID_FIELDS if record.get(name) is not None), None)
        if number is None or self.field is not None:
            return Found()
        name = key_text(number, f"{place}: the id of the picture")
        found = self._by_id(name, place)
        return Found((name,), () if found is None else (found,))

    def _file(self, name: str, parts: Sequence[str]) -> str | None:
        """The file of a name."""
        folders = [Path(self.folder).expanduser()] if self.folder else [Path(), self.beside]
        places = (folder / part / Path(name).expanduser() for folder in folders for part in parts)
        return next((str(path) for path in places if path.is_file()), None)

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


def _names(name: str) -> Iterator[str]:
    """Names of files for an id."""
    stems = [name]
    if name.isascii() and name.isdigit():
        padded = f"{int(name):012d}"
        stems = [name, padded, *(f"COCO_{part}_{padded}" for part in COCO_PARTS)]
    for stem in dict.fromkeys(stems):
        yield from (stem + suffix for suffix in SUFFIXES)


def _name(given: Any, place: str) -> str | None:
    """The name of one picture; None where its pixels are given."""
    if isinstance(given, dict):
        named = next((given[key] for key in _INSIDE if isinstance(given.get(key), str) and given[key]), None)
        if given.get("bytes") is not None or named is not None:
            return named if given.get("bytes") is None else None
    if isinstance(given, str):
        return None if given.startswith("data:") else given
    if isinstance(given, int) and not isinstance(given, bool):
        return str(given)
    raise UserError(f"{place}: its picture is {brief(given)}. Use the name of a file.")


def _formatted(pattern: str, record: Mapping[str, Any], place: str) -> str:
    """A name by a pattern.

    Raises:
        UserError: the record lacks a field of it, or has another kind of value there.
    """
    try:
        return pattern.format(**record)
    except (KeyError, IndexError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"{place}: its picture cannot be named after {pattern!r}: {type(error).__name__} {error}. "
            "Use fields of the record, such as {image_id:012d}."
        ) from error
