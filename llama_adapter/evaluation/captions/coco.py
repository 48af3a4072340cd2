"""Reference captions by image id, from COCO's annotation files, Karpathy's split, or plain lists.

Candidates are ordinary predictions: COCO's results format is a list of records with `image_id` and `caption`.
Where a Karpathy file names pictures by `cocoid`, that is the id, as in COCO's own files. It does not know
scores.
"""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_adapter.errors import UserError
from llama_adapter.evaluation.files import field_of, read_json
from llama_adapter.evaluation.predictions import ID_FIELDS, listed

SPLITS = {"train": ("train",), "trainrestval": ("train", "restval"), "val": ("val",), "test": ("test",)}
"""Name -> Karpathy's own names; what papers train on is `trainrestval`."""


@dataclass(frozen=True)
class Captioned:
    """A picture and what people said about it."""

    id: str
    """COCO's image id."""
    captions: list[str]
    """One or more references."""
    image: str | None = None
    """The picture's file."""


def read_references(path: str, split: str | None = None, images: str | None = None) -> list[Captioned]:
    """Reads reference captions.

    Args:
        path: a COCO annotation file, `dataset_coco.json`, a mapping of id to captions, or records with both.
        split: which part of a Karpathy file; also `restval` and `trainrestval`.
        images: the folder of the pictures.

    Raises:
        UserError: the file is none of these, a picture has no caption, or the split does not fit.
    """
    content = read_json(path)
    folder = Path(images).expanduser() if images else None
    if _is_karpathy(content):
        found = _karpathy(content["images"], split, folder, path)
    else:
        if split is not None:
            raise UserError(f"{path}: has no splits, but split is {split!r}. Leave it out.")
        found = _annotated(content, folder, path) if _is_coco(content) else _plain(content, folder, path)
    empty = [item.id for item in found if not item.captions]
    if empty:
        raise UserError(f"{path}: no caption for {listed(empty)}. Add one, or remove the image.")
    if not found:
        raise UserError(f"{path}: holds no captions for the split {split!r}. Choose another split or file.")
    return found


def _is_karpathy(content: Any) -> bool:
    """Whether it is a `dataset_coco.json`."""
    images = content.get("images") if isinstance(content, dict) else None
    return bool(isinstance(images, list) and images and "sentences" in images[0])


def _is_coco(content: Any) -> bool:
    """Whether it is a `captions_val2014.json`."""
    return isinstance(content, dict) and isinstance(content.get("annotations"), list)


def _karpathy(rows: list[Any], split: str | None, folder: Path | None, path: str) -> list[Captioned]:
    """The pictures of one split."""
    known = sorted({row.get("split") for row in rows})
    wanted = SPLITS.get(split, (split,)) if split is not None else ()
    if not set(wanted) & set(known):
        raise UserError(f"{path}: split is {split!r}. Use one of {', '.join(known)}, trainrestval.")
    found = []
    for row in rows:
        if row.get("split") in wanted:
            name = str(field_of(row, ("cocoid", "imgid"), path))
            captions = [str(field_of(said, ("raw",), path)) for said in row["sentences"]]
            file = str(Path(row.get("filepath", "")) / row.get("filename", ""))
            found.append(Captioned(name, captions, str(folder / file) if folder else None))
    return found


def _annotated(content: dict[str, Any], folder: Path | None, path: str) -> list[Captioned]:
    """The pictures of a COCO annotation file."""
    captions: dict[str, list[str]] = defaultdict(list)
    for row in content["annotations"]:
        captions[str(field_of(row, ("image_id",), path))].append(str(field_of(row, ("caption",), path)))
    files = {str(row.get("id")): row.get("file_name") for row in content.get("images", [])}
    return [
        Captioned(name, captions.get(name, []), str(folder / file) if folder and file else None)
        for name, file in (files or dict.fromkeys(captions)).items()
    ]


def _plain(content: Any, folder: Path | None, path: str) -> list[Captioned]:
    """The pictures of a mapping of id to captions, or of records."""
    if isinstance(content, dict):
        content = [{"id": name, "captions": said} for name, said in content.items()]
    if not isinstance(content, list):
        raise UserError(f"{path}: holds a {type(content).__name__}. Use COCO's or Karpathy's format.")
    found = []
    for number, row in enumerate(content, start=1):
        place = f"{path}: record {number}"
        if not isinstance(row, dict):
            raise UserError(f"{place} is {str(row)[:60]!r}. Use an object with an id and captions.")
        said = field_of(row, ("captions", "references", "caption"), place)
        captions = [said] if isinstance(said, str) else [str(text) for text in said]
        file = row.get("image")
        name = str(field_of(row, ID_FIELDS, place))
        found.append(Captioned(name, captions, str(folder / file) if folder and file else None))
    twice = [item.id for item in found]
    if len(set(twice)) < len(twice):
        repeated = sorted({name for name in twice if twice.count(name) > 1})
        raise UserError(f"{path}: {listed(repeated)} come more than once. Put all captions into one record.")
    return found
