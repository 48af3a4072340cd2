"""Reference captions by image id, from COCO's annotation files, Karpathy's split, or plain lists.

Candidates are ordinary predictions: COCO's results format is a list of records with `image_id` and `caption`.
Where a Karpathy file names pictures by `cocoid`, that is the id, as in COCO's own files. It does not know
scores.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llama_adapter.errors import UserError
from llama_adapter.evaluation.files import field_of, read_json
from llama_adapter.evaluation.joining import ID_FIELDS, IMAGE_ID_FIELDS, MAPPING_KEY, MEDIA_FIELDS
from llama_adapter.evaluation.question_media import MediaFinder
from llama_adapter.evaluation.values import brief, key_text, listed, scalar_text, single_text
from llama_adapter.media import MediaItem

SPLITS = {"train": ("train",), "trainrestval": ("train", "restval"), "val": ("val",), "test": ("test",)}
"""Name -> Karpathy's own names; what papers train on is `trainrestval`."""


@dataclass(frozen=True)
class Captioned:
    """A picture and what people said about it."""

    id: str
    """COCO's image id."""
    captions: list[str]
    """One or more references."""
    media: tuple[MediaItem, ...] = ()
    """What is shown, where that was looked up: files, or names that are no files here."""
    record: dict[str, Any] = field(default_factory=dict, compare=False)
    """What names the picture: `image_id`, and its file where the references say."""


def read_references(
    path: str, split: str | None = None, finder: MediaFinder | None = None
) -> list[Captioned]:
    """Reads reference captions.

    Args:
        path: a COCO annotation file, `dataset_coco.json`, a mapping of id to captions, or records with both.
        split: which part of a Karpathy file; also `restval` and `trainrestval`.
        finder: where the pictures are; without it they are not looked up.

    Raises:
        UserError: the file is none of these, a picture has no caption, or the split does not fit.
    """
    content = read_json(path)
    if _is_karpathy(content):
        found = _karpathy(content["images"], split, path)
    else:
        if split is not None:
            raise UserError(f"{path}: has no splits, but split is {split!r}. Leave it out.")
        found = _annotated(content, path) if _is_coco(content) else _plain(content, path)
    if not found:
        raise UserError(f"{path}: holds no captions for the split {split!r}. Choose another split or file.")
    empty = [str(record["image_id"]) for record, captions in found if not captions]
    if empty:
        raise UserError(f"{path}: no caption for {listed(empty)}. Add one, or remove the image.")
    return [_captioned(record, captions, finder, path) for record, captions in found]


Entry = tuple[dict[str, Any], list[str]]
"""What names a picture (`image_id`, and perhaps its file), and its captions."""


def _captioned(
    record: dict[str, Any], captions: list[str], finder: MediaFinder | None, path: str
) -> Captioned:
    """A picture with its files."""
    name = str(record["image_id"])
    media = () if finder is None else finder.find(record, f"{path}: {name}")
    return Captioned(name, captions, media, record)


def _is_karpathy(content: Any) -> bool:
    """Whether it is a `dataset_coco.json`."""
    images = content.get("images") if isinstance(content, dict) else None
    return (
        isinstance(images, list)
        and bool(images)
        and all(isinstance(row, dict) and isinstance(row.get("sentences"), list) for row in images)
    )


def _is_coco(content: Any) -> bool:
    """Whether it is a `captions_val2014.json`."""
    return isinstance(content, dict) and isinstance(content.get("annotations"), list)


def _karpathy(rows: list[dict[str, Any]], split: str | None, path: str) -> list[Entry]:
    """The pictures of one split."""
    known = sorted({brief(row.get("split")).strip("'") for row in rows})
    wanted = SPLITS.get(split, (split,)) if split is not None else ()
    if not set(wanted) & set(known):
        raise UserError(f"{path}: split is {split!r}. Use one of {', '.join(known)}, trainrestval.")
    found = []
    for row in rows:
        if row.get("split") in wanted:
            name = key_text(field_of(row, ("cocoid", "imgid"), path), f"{path}: cocoid")
            said = [single_text(sentence, f"{path}: a sentence of {name!r}") for sentence in row["sentences"]]
            folder, file = (
                scalar_text(row.get(key, ""), f"{path}: {key} of {name!r}")
                for key in ("filepath", "filename")
            )
            found.append((_named(name, {"image": str(Path(folder) / file) if file else None}), said))
    return found


def _annotated(content: dict[str, Any], path: str) -> list[Entry]:
    """The pictures of a COCO annotation file."""
    captions: dict[str, list[str]] = defaultdict(list)
    for row in _objects(content["annotations"], path):
        name = key_text(field_of(row, ("image_id",), path), f"{path}: image_id")
        captions[name].append(
            single_text(field_of(row, ("caption",), path), f"{path}: a caption of {name!r}")
        )
    files = {
        key_text(field_of(row, ("id",), path), f"{path}: id of an image"): row
        for row in _objects(content.get("images") or [], path)
    }
    return [(_named(name, files.get(name, {})), captions.get(name, [])) for name in (files or captions)]


def _plain(content: Any, path: str) -> list[Entry]:
    """The pictures of a mapping of id to captions, or of records."""
    if isinstance(content, dict):
        content = [{MAPPING_KEY: name, "captions": said} for name, said in content.items()]
    if not isinstance(content, list):
        raise UserError(f"{path}: holds a {type(content).__name__}. Use COCO's or Karpathy's format.")
    found: dict[str, Entry] = {}
    repeated: dict[str, None] = {}
    for number, row in enumerate(_objects(content, path), start=1):
        place = f"{path}: record {number}"
        said = field_of(row, ("captions", "references", "caption"), place)
        name = key_text(field_of(row, (*IMAGE_ID_FIELDS, *ID_FIELDS), place), f"{place}: its id")
        captions = [
            single_text(text, f"{place}: its caption")
            for text in (said if isinstance(said, list) else [said])
        ]
        if name in found and isinstance(said, list):
            repeated[name] = None
        found.setdefault(name, (_named(name, row), []))[1].extend(captions)
    if repeated:
        raise UserError(f"{path}: {listed(repeated)} come more than once. Put all captions into one record.")
    return list(found.values())


def _named(name: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """What names a picture, a number for patterns of names; and the files that its record names."""
    number: str | int = int(name) if name.isascii() and name.isdigit() and name == str(int(name)) else name
    return {key: row[key] for key in MEDIA_FIELDS if row.get(key)} | {"image_id": number}


def _objects(rows: Any, path: str) -> list[dict[str, Any]]:
    """Records, all of which are objects.

    Raises:
        UserError: one is none.
    """
    if not isinstance(rows, list):
        raise UserError(f"{path}: holds {brief(rows)} where images are listed. Use a list of objects.")
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise UserError(
                f"{path}: record {number} is {brief(row)}. Use an object with an id and captions."
            )
    return rows
