"""Predictions: what a model answered, by the id of the question, from whatever JSON people keep it in.

Read are a mapping from id to answer, a list (or lines) of records with an id and an answer or of bare texts,
ScienceQA's result files (`results`), and a mapping of several such files by model name. The names of the two
fields are looked for in `ID_FIELDS` and `ANSWER_FIELDS`. What an answer means, the tasks know.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llama_adapter.errors import UserError
from llama_adapter.evaluation.files import field_of, read_json

ID_FIELDS = ("question_id", "questionId", "pid", "qid", "image_id", "id")
"""Names of a record's id; the first one that a record has counts."""
ANSWER_FIELDS = ("prediction", "pred", "generated", "response", "output", "caption", "answer", "text")
"""Names of a record's answer; the first one that a record has counts."""
_NO_ID = re.compile(r"height\d+_width\d+|-1")
"""What stands in place of an id in LLaMA2-Accessory's files of RefCOCO and VSR."""
SHOWN = 8
"""How many ids a message lists."""


@dataclass(frozen=True)
class Predictions:
    """The answers of one model."""

    answers: dict[str, Any]
    """Id -> answer: a text, or a number where the file names an option by its index."""
    stated: dict[str, Any] = field(default_factory=dict)
    """What the file says about itself beside the answers, such as `acc`."""


def read_predictions(path: str | Path, model: str | None = None) -> Predictions:
    """Reads a file of predictions.

    Args:
        path: JSON or JSON lines.
        model: which entry to take where the file holds several models.

    Raises:
        UserError: the file cannot be read, holds no answers, or holds an id twice.
    """
    content = read_json(path)
    if isinstance(content, dict):
        if _is_collection(content):
            content = _choose(content, model, path)
        elif model is not None:
            raise UserError(f"{path}: holds one model, but model is {model!r}. Leave it out.")
        return _from_mapping(content, path)
    if not isinstance(content, list) or not content:
        raise UserError(f"{path}: holds no predictions. Use a mapping of id to answer, or a list of records.")
    return Predictions(_from_rows(content, path))


def pair(wanted: Iterable[str], given: Iterable[str], allow_missing: bool) -> list[str]:
    """Checks that every question has an answer.

    Args:
        wanted: ids of the questions.
        given: ids of the predictions.
        allow_missing: whether a question may stay without an answer.

    Returns:
        Notes about what does not match, for the report.

    Raises:
        UserError: no id matches, or an answer is missing and may not be.
    """
    asked, answered = list(wanted), dict.fromkeys(given)
    missing = [name for name in asked if name not in answered]
    unknown = sorted(set(answered) - set(asked))
    if asked and len(missing) == len(asked):
        raise UserError(
            f"No prediction has the id of a question: {listed(unknown)} came, {listed(asked)} are asked. "
            "Use the ids of the questions."
        )
    if missing and not allow_missing:
        raise UserError(
            f"{len(missing)} of {len(asked)} questions have no prediction: {listed(missing)}. "
            "Add them, or use --missing wrong."
        )
    notes = [f"{len(missing)} questions without a prediction count as wrong."] if missing else []
    if unknown:
        notes.append(f"{len(unknown)} predictions belong to no question here and were left out.")
    return notes


def listed(names: Iterable[str]) -> str:
    """The first few ids, for a message."""
    names = list(names)
    rest = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(repr, names[:SHOWN])) + rest


def _is_collection(content: dict[str, Any]) -> bool:
    """Whether a mapping holds several result files by name."""
    return bool(content) and all(
        isinstance(value, dict) and isinstance(value.get("results"), dict) for value in content.values()
    )


def _choose(content: dict[str, Any], model: str | None, path: str | Path) -> dict[str, Any]:
    """One model of a collection."""
    if model not in content:
        asked = "no model was chosen" if model is None else f"there is no {model!r}"
        raise UserError(f"{path}: holds several models and {asked}. Use --model with {listed(content)}.")
    chosen: dict[str, Any] = content[model]
    return chosen


def _from_mapping(content: dict[str, Any], path: str | Path) -> Predictions:
    """A mapping of id to answer, or a result file around one."""
    results = content.get("results")
    if isinstance(results, dict):
        stated = {key: value for key, value in content.items() if isinstance(value, str | int | float)}
        return Predictions({str(key): value for key, value in results.items()}, stated)
    if not content:
        raise UserError(f"{path}: is empty. Use a mapping of id to answer.")
    for key, value in content.items():
        if not isinstance(value, str | int | float | list):
            raise UserError(f"{path}: the answer of {key!r} is {str(value)[:60]!r}. Use a text.")
    return Predictions({str(key): value for key, value in content.items()})


def _from_rows(rows: list[Any], path: str | Path) -> dict[str, Any]:
    """A list of records, or of texts in the order of the questions."""
    if all(isinstance(row, str) for row in rows):
        return {str(number): row for number, row in enumerate(rows)}
    names = row_ids(rows, path)
    return {
        name: field_of(row, ANSWER_FIELDS, f"{path}: {name!r}") for name, row in zip(names, rows, strict=True)
    }


def row_ids(rows: list[Any], path: str | Path) -> list[str]:
    """The ids of records; their row numbers, from 0, where no record has an id, or none that names it.

    Args:
        rows: the records.
        path: for the message.

    Raises:
        UserError: a record is no object, an id comes twice, or only some have one.
    """
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise UserError(f"{path}: record {number} is {str(row)[:60]!r}. Use an object with named fields.")
    names = [next((str(row[key]) for key in ID_FIELDS if row.get(key) is not None), "") for row in rows]
    if all(not name or _NO_ID.fullmatch(name) for name in names):
        return [str(number) for number in range(len(rows))]
    if len(set(names)) < len(names) or "" in names:
        counted = Counter(names)
        repeated = [name for name, count in counted.items() if count > 1 or not name]
        raise UserError(
            f"{path}: the ids {listed(repeated)} are empty or come more than once. "
            "Use every id once, or no ids at all: then the order of the records counts."
        )
    return names
