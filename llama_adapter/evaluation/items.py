"""Questions with reference answers as most benchmarks keep them, and what the tasks on them share.

A file is a list (or lines) of records with a question and one or more reference answers, such a list inside
of an object (VQA, TextVQA), or a mapping of id to record (GQA). Official layouts of VQA (with its second
file), VizWiz, TextVQA, GQA, ChartQA, DocVQA, POPE and VSR are read as they come. How a question is called,
`joining.question_ids` says. It does not know how an answer is scored.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from llama_adapter.errors import UserError
from llama_adapter.evaluation.answer_fields import REFERENCE_FIELDS
from llama_adapter.evaluation.files import read_json
from llama_adapter.evaluation.joining import MAPPING_KEY, QUESTION_FIELDS, keys_of, question_ids
from llama_adapter.evaluation.question import Question
from llama_adapter.evaluation.question_media import MediaFinder, alone
from llama_adapter.evaluation.task import EvaluateConfig
from llama_adapter.evaluation.values import brief, listed, scalar_text, single_text
from llama_adapter.media import MediaItem

LISTS = ("annotations", "data", "questions")
"""Under one of these an object holds the list of questions."""
STATEMENT = 'Is the following statement "{}" true or false?'
"""How LLaMA2-Accessory asks VSR's statements."""
VERDICTS = {0: ["false", "no", "0"], 1: ["true", "yes", "1"]}
"""VSR's label -> what says the same."""


@dataclass(frozen=True)
class Item:
    """One question with what is right."""

    id: str
    """Names it in predictions."""
    question: str
    """What is asked; may be empty."""
    references: list[Any]
    """What is right, as the file has it: texts, records with `answer`, or numbers of a box."""
    row: dict[str, Any]
    """The whole record."""

    @property
    def image(self) -> str | None:
        """The file of the picture, as the record names it."""
        return keys_of(self.row).get("file")

    @property
    def texts(self) -> list[str]:
        """What is right, as texts."""
        return [single_text(one, f"The reference answer of {self.id!r}") for one in self.references]

    @property
    def options(self) -> list[str]:
        """What there is to choose from."""
        given = self.row.get("choices") or self.row.get("options") or []
        if not isinstance(given, list):
            raise UserError(f"The options of {self.id!r} are {brief(given)}. Use a list of texts.")
        return [scalar_text(option, f"An option of {self.id!r}") for option in given]


@dataclass(kw_only=True)
class ItemsConfig(EvaluateConfig):
    """What tasks on such files have in common."""

    references: str
    """JSON or JSONL with the questions and their reference answers."""

    question_file: str | None = None
    """JSON or JSONL with the questions, where the references hold answers alone, as VQA's annotations do."""

    images: str | None = None
    """Folder in which questions' pictures are looked up; by default where the names say, else beside the
    references. MME's may lie in a folder per category."""

    media_name: str | None = None
    """Name of the picture of a question whose record names none, made from what the record has, such as
    COCO_val2014_{image_id:012d}.jpg."""

    media_field: str | None = None
    """The field of a record that names its picture; found by itself where it has a usual name."""

    text_questions: int = 0
    """How many of the questions have no picture by nature. A model that sees is asked the others only with
    theirs."""

    as_published: bool = False
    """Score like LLaMA2-Accessory's code, quirks included, to compare with published numbers."""

    suffix: str = "\nAnswer the question using a single word or phrase."
    """Put behind every question that a model is asked."""

    def __post_init__(self) -> None:
        """Checks the number, and that a picture has one name."""
        super().__post_init__()
        if self.text_questions < 0:
            raise UserError(f"text_questions is {self.text_questions}. Use 0 or more.")
        if self.media_name is not None and self.media_field is not None:
            raise UserError(
                f"media_name is {self.media_name!r} and media_field {self.media_field!r}. Use one of the two."
            )


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
        return read_items(self.config.references, self.config.question_file)

    @cached_property
    def _media(self) -> dict[str, tuple[MediaItem, ...]]:
        """What is shown with each question, by its id; not looked up where answers are there already."""
        path, config = Path(self.config.references).expanduser(), self.config
        if config.predictions is not None and config.questions is None:
            return {}
        beside = path if path.is_dir() else path.parent
        finder = MediaFinder(config.images, beside, config.media_name, config.media_field)
        return {item.id: finder.find(item.row, f"{path}: {item.id}", _parts(item.row)) for item in self.items}

    def questions(self) -> list[Question]:
        """What to ask.

        Raises:
            UserError: a model is to be asked, and a record has no question.
        """
        silent = [item.id for item in self.items if not item.question.strip()]
        if silent and self.config.predictions is None:
            raise UserError(
                f"{self.config.references}: {len(silent)} of {len(self.items)} records have no question to "
                f"ask: {listed(silent)}. Add `question`; VQA's annotations have theirs in another file: "
                "--question-file."
            )
        return [self._question(item, item.question + self.config.suffix) for item in self.items]

    def _question(self, item: Item, prompt: str) -> Question:
        """One question as it is asked."""
        media = self._media.get(item.id, ())
        image = alone(media)
        return Question(
            item.id,
            prompt,
            image,
            item.options,
            has_image=bool(media),
            has_none=not media and self._bare == self.config.text_questions,
            inputs=() if image else media,
            record=item.row,
        )

    @cached_property
    def _bare(self) -> int:
        """How many questions come with nothing to be shown."""
        return sum(not found for found in self._media.values())

    def settings(self) -> dict[str, Any]:
        """How it was scored."""
        return {"as_published": self.config.as_published}


def read_items(path: str, question_file: str | None = None) -> list[Item]:
    """Reads questions with reference answers.

    Args:
        path: JSON or JSON lines.
        question_file: the questions of records that have only answers.

    Raises:
        UserError: the file holds no such records.
    """
    rows = _rows(path)
    if question_file is not None:
        rows = _with_questions(rows, path, question_file)
    names = question_ids(rows, path)
    return [_item(name, row, f"{path}: {name}") for name, row in zip(names, rows, strict=True)]


def answer_text(answers: Mapping[str, Any], item: Item) -> str:
    """An answer as text; empty where there is none."""
    answer = answers.get(item.id)
    return "" if answer is None else scalar_text(answer, f"The answer to {item.id!r}")


def mean(values: Sequence[float]) -> float:
    """The mean; 0 of nothing."""
    return sum(values) / len(values) if values else 0.0


def question_of(row: Mapping[str, Any], place: str) -> str:
    """What a record asks; empty where it does not say.

    Args:
        row: the record.
        place: for the message.

    Raises:
        UserError: it asks several questions, or none that is a text.
    """
    if isinstance(row.get("questions"), list):
        raise UserError(f"{place}: holds a list of questions. Write one record for each.")
    asked = next((row[name] for name in QUESTION_FIELDS if row.get(name) is not None), "")
    if not isinstance(asked, str):
        raise UserError(f"{place}: its question is {brief(asked)}. Use a text.")
    return STATEMENT.format(asked) if _is_statement(row) else asked


def _rows(path: str) -> list[dict[str, Any]]:
    """The records of a file."""
    content = read_json(path)
    if isinstance(content, dict):
        named = next((content[name] for name in LISTS if isinstance(content.get(name), list)), None)
        if named is None and content and all(isinstance(row, dict) for row in content.values()):
            named = [{**row, MAPPING_KEY: key} for key, row in content.items()]
        content = named
    if not isinstance(content, list) or not content:
        raise UserError(f"{path}: holds no list of questions. Use records with an id and answers.")
    for number, row in enumerate(content):
        if not isinstance(row, dict):
            raise UserError(f"{path}: record {number} is {brief(row)}. Use an object with named fields.")
    return content


def _with_questions(rows: list[dict[str, Any]], path: str, question_file: str) -> list[dict[str, Any]]:
    """Records with what another file says of them, joined by id.

    Raises:
        UserError: a record has no question there, or its id is none.
    """
    asked: dict[str, dict[str, Any]] = {}
    for row in _rows(question_file):
        asked[keys_of(row).get("id", "")] = row
    wanted = [keys_of(row).get("id", "") for row in rows]
    if lost := [name or "a record without id" for name in wanted if not name or name not in asked]:
        raise UserError(
            f"{question_file}: has no question for {len(lost)} of {len(rows)} records of {path}: "
            f"{listed(lost)}. Use the file that belongs to them."
        )
    return [{**asked[name], **row} for name, row in zip(wanted, rows, strict=True)]


def _is_statement(row: Mapping[str, Any]) -> bool:
    """Whether a record is one of VSR: a caption that is true of its picture (1), or not (0)."""
    return (
        isinstance(row.get("caption"), str)
        and isinstance(row.get("label"), int)
        and row["label"] in VERDICTS
        and "question" not in row
    )


def _item(name: str, row: dict[str, Any], place: str) -> Item:
    """One question from its record."""
    asked = question_of(row, place)
    found = next((row[key] for key in REFERENCE_FIELDS if row.get(key) is not None), None)
    if found is None:
        raise UserError(
            f"{place}: {brief(row)} has none of the fields {', '.join(REFERENCE_FIELDS)}. "
            "Use one of these names."
        )
    references = list(found) if isinstance(found, list) else [found]
    if not references:
        raise UserError(f"{place}: has no reference answer ({found!r}). Add one.")
    if _is_statement(row):
        references = list(VERDICTS[row["label"]])
    return Item(name, asked, references, row)


def _parts(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Folders in which a question's picture may lie; MME has one per category."""
    kind = row.get("category")
    return ("", kind, f"{kind}/images") if isinstance(kind, str) and kind else ("",)
