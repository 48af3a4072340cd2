"""Where a record of predictions has its answer, and what that is.

One field is chosen for a whole file. Names that only a prediction can have come first; where a file leaves
several others, or the one left repeats the right answers beside a field that may be the prediction, it is
refused: right answers are never scored as predictions. Which record belongs to which question is known here.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from llama_adapter.errors import UserError
from llama_adapter.evaluation.joining import QUESTION_FIELDS
from llama_adapter.evaluation.question import Question
from llama_adapter.evaluation.values import listed, single

PREDICTED = (
    *("prediction", "pred", "predicted", "predicted_answer", "prediction_text", "pred_answer"),
    *("model_answer", "model_output", "model_response", "model_prediction"),
    *("generated", "generated_text", "generated_answer", "generation", "completion", "hypothesis"),
)
"""Names that only a prediction can have."""
RESPONSES = ("response", "output")
"""Names that a prediction has where none of the first is there."""
OTHERS = ("caption", "answer", "text")
"""Names that may as well be a right answer's or a question's."""
REFERENCE_FIELDS = (
    *("answers", "gt_answers", "gt_answer", "reference", "references", "answer", "label"),
    *("gt", "ground_truth", "multiple_choice_answer", "bbox"),
)
"""Names of a record's right answers; the first one that a record has counts."""

_HARMLESS = re.compile(
    r".*(id|name|type|time|path|file|url|version|tokens?|confidence|reason)|prompt|model|run|read|shown"
    r"|adapter|category|split|subset|dataset|source|language|image|images|audio|video",
    re.IGNORECASE,
)
"""Fields of records of predictions that are no predictions."""

Pair = tuple[Mapping[str, Any], Question]
"""A prediction and its question."""


def answers_of(
    questions: Sequence[Question],
    records: Sequence[Mapping[str, Any]],
    places: Sequence[int | None],
    place: str,
    chosen: str | None = None,
) -> dict[str, Any]:
    """The answer to every question that has one.

    Args:
        questions: what is asked.
        records: the predictions.
        places: for every question the number of its prediction, or None.
        place: their file, for messages.
        chosen: the field that holds the answer; found by itself where it is None.

    Returns:
        Id -> a text, a number, or a list of numbers.

    Raises:
        UserError: it cannot be told which field holds the answer, or an answer is no single one.
    """
    pairs = [(records[n], q) for q, n in zip(questions, places, strict=True) if n is not None]
    field = _chosen(records, chosen, place) if chosen is not None else _found(pairs, place)
    found = {q.id: single(record.get(field), f"{place}: {field!r} of {q.id!r}") for record, q in pairs}
    return {key: answer for key, answer in found.items() if answer is not None}


def _chosen(records: Sequence[Mapping[str, Any]], name: str, place: str) -> str:
    """The field that the user names."""
    if not any(record.get(name) is not None for record in records):
        known = listed(dict.fromkeys(key for record in records for key in record))
        raise UserError(f"{place}: no record has an answer under {name!r}. Use one of {known}.")
    return name


def _found(pairs: Sequence[Pair], place: str) -> str:
    """The field that holds the answer.

    Raises:
        UserError: there is none, or more than one.
    """
    for names in (PREDICTED, RESPONSES, OTHERS):
        present = [name for name in names if any(record.get(name) is not None for record, _ in pairs)]
        left = [name for name in present if not _is_copied(pairs, name)] or present
        differ = [
            name for name in left[1:] if any(record.get(name) != record.get(left[0]) for record, _ in pairs)
        ]
        if differ:
            raise UserError(
                f"{place}: the fields {listed(left)} may all be the prediction. "
                "Use --answer-field with one of them."
            )
        if left:
            if names is not PREDICTED:
                _check_gold(pairs, left[0], place)
            return left[0]
    known = listed(dict.fromkeys(key for record, _ in pairs for key in record))
    raise UserError(
        f"{place}: no record has an answer, its fields are {known}. Use --answer-field, or one of the names "
        f"{', '.join((*PREDICTED, *RESPONSES, *OTHERS))}."
    )


def _is_copied(pairs: Sequence[Pair], name: str) -> bool:
    """Whether a field repeats what is asked: in every record it equals a field of the question."""
    if name not in (*OTHERS, *RESPONSES):
        return False
    asked = [field for field in (*QUESTION_FIELDS, *RESPONSES) if field not in REFERENCE_FIELDS]
    return all(
        any(record.get(name) == question.record.get(field) is not None for field in asked)
        for record, question in pairs
    )


def _check_gold(pairs: Sequence[Pair], name: str, place: str) -> None:
    """Refuses right answers where another field may hold the predictions.

    Raises:
        UserError: names the other field.
    """
    if not all(record.get(name) in _right(question) for record, question in pairs):
        return
    others = {
        key: None
        for record, question in pairs
        for key, value in record.items()
        if isinstance(value, str)
        and key != name
        and key not in question.record
        and key not in QUESTION_FIELDS
        and not _HARMLESS.fullmatch(key)
        and value != record.get(name)
    }
    if others:
        raise UserError(
            f"{place}: {name!r} is the right answer in every record, and {listed(others)} may be the "
            "prediction. Use --answer-field with the field that holds the prediction."
        )


def _right(question: Question) -> list[Any]:
    """The right answers of a question, as its record has them."""
    found = [question.record.get(name) for name in REFERENCE_FIELDS]
    several = [one for value in found if isinstance(value, list) for one in value]
    return [*found, *several, *(one.get("answer") for one in several if isinstance(one, dict))]
