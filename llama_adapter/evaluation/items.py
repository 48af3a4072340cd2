"""Questions with reference answers as most benchmarks keep them, and what the tasks on them share.

A file is a list (or lines) of records with an id, a question and one or more reference answers, or VQA's
annotation file. Where ids are absent, or name nothing as in LLaMA2-Accessory's RefCOCO and VSR files, the
row number, from 0, is the id, in predictions too. It does not know how an answer is scored.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from llama_adapter.errors import UserError
from llama_adapter.evaluation.files import field_of, read_json
from llama_adapter.evaluation.predictions import listed, row_ids
from llama_adapter.evaluation.task import EvaluateConfig, Question

REFERENCE_FIELDS = (
    "answers",
    "gt_answers",
    "gt_answer",
    "reference",
    "references",
    "answer",
    "label",
    "gt",
    "bbox",
)
"""Names of a record's reference answers; the first one that a record has counts."""


@dataclass(frozen=True)
class Item:
    """One question with what is right."""

    id: str
    """Names it in predictions."""
    question: str
    """What is asked; may be empty."""
    references: list[Any]
    """What is right: texts, or numbers of a box."""
    row: dict[str, Any]
    """The whole record."""

    @property
    def image(self) -> str | None:
        """The picture's file."""
        return self.row.get("image_path") or self.row.get("image")

    @property
    def options(self) -> list[str]:
        """What there is to choose from."""
        return [str(option) for option in self.row.get("choices") or self.row.get("options") or []]


@dataclass(kw_only=True)
class ItemsConfig(EvaluateConfig):
    """What tasks on such files have in common."""

    references: str
    """JSON or JSONL with the questions and their reference answers."""

    images: str | None = None
    """Folder in which questions' pictures are looked up; by default where the names say, else beside the
    references. MME's may lie in a folder per category."""

    as_published: bool = False
    """Score like LLaMA2-Accessory's code, quirks included, to compare with published numbers."""

    suffix: str = "\nAnswer the question using a single word or phrase."
    """Put behind every question that a model is asked."""


@dataclass
class ItemsTask:
    """A task whose questions come from such a file; scoring is the subclass's business."""

    config: ItemsConfig
    """Its settings."""
    name: ClassVar[str]

    @cached_property
    def items(self) -> list[Item]:
        """The questions that are asked."""
        return self.config.limited(self._read())

    def _read(self) -> list[Item]:
        """All questions of the file."""
        return read_items(self.config.references)

    def questions(self) -> list[Question]:
        """What to ask.

        Raises:
            UserError: a model is to be asked, and a record has no question.
        """
        silent = [item.id for item in self.items if not item.question.strip()]
        if silent and self.config.predictions is None:
            raise UserError(
                f"{self.config.references}: {len(silent)} of {len(self.items)} records have no question to "
                f"ask: {listed(silent)}. Add `question`; VQA's annotations have theirs in another file."
            )
        return [self._question(item, item.question + self.config.suffix) for item in self.items]

    def _question(self, item: Item, prompt: str) -> Question:
        """One question as it is asked."""
        return Question(item.id, prompt, self._picture(item), item.options, has_image=bool(item.image))

    def _picture(self, item: Item) -> str | None:
        """The picture's file; as it is named where there is none."""
        if not item.image:
            return item.image
        references = Path(self.config.references).expanduser()
        beside = references if references.is_dir() else references.parent
        folders = [Path(self.config.images).expanduser()] if self.config.images else [Path(), beside]
        kind = str(item.row.get("category") or "")
        parts = dict.fromkeys(("", kind, f"{kind}/images"))
        places = [folder / part / item.image for folder in folders for part in parts]
        return next((str(place) for place in places if place.is_file()), item.image)

    def settings(self) -> dict[str, Any]:
        """How it was scored."""
        return {"as_published": self.config.as_published}


def read_items(path: str) -> list[Item]:
    """Reads questions with reference answers.

    Args:
        path: JSON or JSON lines.

    Raises:
        UserError: the file holds no such records.
    """
    content = read_json(path)
    if isinstance(content, dict):
        content = content.get("annotations", content.get("data"))
    if not isinstance(content, list) or not content:
        raise UserError(f"{path}: holds no list of questions. Use records with an id and answers.")
    names = row_ids(content, path)
    return [_item(name, row, f"{path}: {name}") for name, row in zip(names, content, strict=True)]


def answer_text(answers: Mapping[str, Any], item: Item) -> str:
    """An answer as text; empty where there is none."""
    answer = answers.get(item.id)
    return "" if answer is None else str(answer)


def mean(values: Sequence[float]) -> float:
    """The mean; 0 of nothing."""
    return sum(values) / len(values) if values else 0.0


def _item(name: str, row: dict[str, Any], place: str) -> Item:
    """One question from its record."""
    found = field_of(row, REFERENCE_FIELDS, place)
    references = found if isinstance(found, list) else [found]
    if not references:
        raise UserError(f"{place}: has no reference answer ({found!r}). Add one.")
    return Item(name, str(row.get("question", "")), references, row)
