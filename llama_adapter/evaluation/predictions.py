"""Predictions: records of what a model answered, from whatever JSON people keep it in.

Read are a mapping from id to answer or record, a list (or lines) of records or of bare texts, such a list
inside of an object, ScienceQA's result files (`results`), and a mapping of several such files by model name.
To which question a record belongs, and where its answer stands, is found beside the questions
(`joining.py`, `answer_fields.py`); what an answer means, the tasks know.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llama_adapter.errors import UserError
from llama_adapter.evaluation.files import read_json
from llama_adapter.evaluation.joining import MAPPING_KEY, listed
from llama_adapter.evaluation.values import brief

LISTS = ("annotations", "data", "predictions", "results", "answers")
"""Under one of these an object holds the list of records."""
BARE = "prediction"
"""The field that an answer without a record gets."""


@dataclass(frozen=True)
class Predictions:
    """The answers of one model."""

    place: str
    """The file, for messages."""
    records: list[dict[str, Any]]
    """One per answer; the id of a mapping stands under ``MAPPING_KEY``, a bare answer under ``BARE``."""
    stated: dict[str, Any] = field(default_factory=dict)
    """What the file says about itself beside the answers, such as `acc`."""


def read_predictions(path: str | Path, model: str | None = None) -> Predictions:
    """Reads a file of predictions.

    Args:
        path: JSON or JSON lines.
        model: which entry to take where the file holds several models.

    Raises:
        UserError: the file cannot be read, or holds no answers.
    """
    content = read_json(path)
    if isinstance(content, dict):
        if _is_collection(content):
            content = _choose(content, model, path)
        elif model is not None:
            raise UserError(f"{path}: holds one model, but model is {model!r}. Leave it out.")
        if (name := _list_in(content)) is not None:
            content = content[name]
    if isinstance(content, dict):
        return _from_mapping(content, path)
    if not isinstance(content, list) or not content:
        raise UserError(f"{path}: holds no predictions. Use a mapping of id to answer, or a list of records.")
    if all(isinstance(row, str) for row in content):
        return Predictions(str(path), [{BARE: row} for row in content])
    for number, row in enumerate(content):
        if not isinstance(row, dict):
            raise UserError(f"{path}: record {number} is {brief(row)}. Use an object with named fields.")
    return Predictions(str(path), content)


def _is_collection(content: dict[str, Any]) -> bool:
    """Whether a mapping holds several result files by name."""
    return bool(content) and all(
        isinstance(value, dict) and isinstance(value.get("results"), dict) for value in content.values()
    )


def _list_in(content: dict[str, Any]) -> str | None:
    """The name of the list of records that an object holds, if it does."""
    for name in LISTS:
        rows = content.get(name)
        if isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows):
            return name
    return None


def _choose(content: dict[str, Any], model: str | None, path: str | Path) -> dict[str, Any]:
    """One model of a collection."""
    if model not in content:
        asked = "no model was chosen" if model is None else f"there is no {model!r}"
        raise UserError(f"{path}: holds several models and {asked}. Use --model with {listed(content)}.")
    chosen: dict[str, Any] = content[model]
    return chosen


def _from_mapping(content: dict[str, Any], path: str | Path) -> Predictions:
    """A mapping of id to answer, or a result file around one."""
    stated: dict[str, Any] = {}
    if isinstance(content.get("results"), dict):
        stated = {key: value for key, value in content.items() if isinstance(value, str | int | float)}
        content = content["results"]
    if not content:
        raise UserError(f"{path}: is empty. Use a mapping of id to answer.")
    records = [
        {**(value if isinstance(value, dict) else {BARE: value}), MAPPING_KEY: key}
        for key, value in content.items()
    ]
    return Predictions(str(path), records, stated)
