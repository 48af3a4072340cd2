"""A folder with one folder per class -> the classes, their names, and the records to classify.

All files at any depth below a class's folder belong to it; those whose names begin with a dot do not count.
Texts are an exception: every line of a file is a record. Whether a file can be read is not known here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_adapter.errors import UserError
from llama_adapter.evaluation.files import read_json, read_text


@dataclass(frozen=True)
class Record:
    """One thing to classify."""

    id: str
    """Its path below the folder; of a text also the number of its line."""
    content: str | Path
    """The file, or the text itself."""
    label: int
    """Number of its class."""


@dataclass(frozen=True)
class Classes:
    """What there is to choose from, and what is classified."""

    folders: list[str]
    """The classes, as their folders are called."""
    names: list[list[str]]
    """How each is said: one name, or several that mean the same."""
    records: list[Record]
    """All records, class by class."""


def read_classes(folder: str | Path, texts: bool = False, names: str | None = None) -> Classes:
    """Looks through a folder.

    Args:
        folder: holds one folder per class.
        texts: whether records are lines of text files.
        names: file with the classes' names: see ``read_names``. Classes without a folder are further choices.
            Without it a folder's name is its class's, with spaces for underscores.

    Raises:
        UserError: there are no classes or records, or a folder has no name.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise UserError(f"{str(root)!r} is no folder. Use one that holds a folder per class.")
    here = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not here:
        raise UserError(
            f"{str(root)!r} holds no folders. Put the files of each class into a folder of its own."
        )
    said = {name: [name.replace("_", " ")] for name in here} if names is None else read_names(names, here)
    if unnamed := [name for name in here if name not in said]:
        raise UserError(f"{names!r} has no name for the folder {unnamed[0]!r} of {str(root)!r}. Add it.")
    records = [
        record for label, name in enumerate(said) for record in _records(root, name, label, texts=texts)
    ]
    if not records:
        raise UserError(
            f"The folders of {str(root)!r} hold no files. Put the files of each class into its own."
        )
    return Classes(list(said), list(said.values()), records)


def read_names(path: str, folders: list[str]) -> dict[str, list[str]]:
    """Names of classes.

    Args:
        path: JSON, a mapping of folder to name or to several names; or text, one name per line, in the order
            of the sorted folders.
        folders: the sorted folders.

    Returns:
        Folder -> names.

    Raises:
        UserError: the file holds something else.
    """
    if Path(path).suffix.lower() != ".json":
        lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
        if len(lines) != len(folders):
            raise UserError(
                f"{path!r} holds {len(lines)} names for {len(folders)} folders. Use one line per "
                "folder, in their sorted order, or a .json of folder to name."
            )
        return {folder: [line] for folder, line in zip(folders, lines, strict=True)}
    content: Any = read_json(path)
    found = content if isinstance(content, dict) else {}
    names = {str(folder): [said] if isinstance(said, str) else said for folder, said in found.items()}
    if not names or not all(
        isinstance(said, list) and said and all(isinstance(name, str) and name.strip() for name in said)
        for said in names.values()
    ):
        raise UserError(f'{path!r} holds no names. Use {{"folder": "name", "other": ["name", "another"]}}.')
    return names


def _records(root: Path, name: str, label: int, texts: bool) -> Iterator[Record]:
    """The records of one class."""
    for path in sorted((root / name).rglob("*")):
        place = path.relative_to(root)
        if not path.is_file() or any(part.startswith(".") for part in place.parts):
            continue
        if not texts:
            yield Record(place.as_posix(), path, label)
            continue
        for number, line in enumerate(read_text(path).splitlines(), start=1):
            if line.strip():
                yield Record(f"{place.as_posix()}:{number}", line.strip(), label)
