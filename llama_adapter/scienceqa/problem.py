"""A question of ScienceQA, from a record with the fields of the official `problems.json`.

Fields that a source lacks stay unknown. Where records come from is not known here.
"""

import reprlib
from dataclasses import dataclass
from typing import Any

from llama_adapter.errors import UserError


@dataclass(frozen=True)
class Problem:
    """One multiple-choice question."""

    id: str
    """The problem id, `pid`."""
    question: str
    """What is asked."""
    choices: list[str]
    """The options, in order."""
    answer: int
    """Index of the right option, from 0."""
    hint: str = ""
    """Context in words; may be empty."""
    has_image: bool = False
    """Whether a picture belongs to it."""
    image: str | None = None
    """File of the picture, as the source names it or where it is."""
    subject: str | None = None
    """`natural science`, `social science` or `language science`."""
    grade: int | None = None
    """School grade, 1 to 12; None where the source does not say."""
    lecture: str = ""
    """Background, for prompts that ask for an explanation."""
    solution: str = ""
    """Explanation of the answer."""


def problem_of(pid: str, row: dict[str, Any], source: str) -> Problem:
    """One question from its record.

    Args:
        pid: the problem id.
        row: the record, with the fields of the official `problems.json`.
        source: where it is from, for messages.

    Raises:
        UserError: it is incomplete.
    """
    place = f"{source}: problem {pid}"
    choices, answer = row.get("choices"), row.get("answer")
    if not isinstance(row.get("question"), str) or not isinstance(choices, list) or len(choices) < 2:
        raise UserError(f"{place}: {reprlib.repr(row)} is no question. Add question and two or more choices.")
    if isinstance(answer, bool) or not isinstance(answer, int) or not 0 <= answer < len(choices):
        raise UserError(
            f"{place}: answer is {reprlib.repr(answer)} for {len(choices)} choices. "
            "Use the index of one, from 0."
        )
    image = row.get("image")
    return Problem(
        id=pid,
        question=row["question"],
        choices=[_text(choice, place) for choice in choices],
        answer=answer,
        hint=_optional(row, "hint", place) or "",
        has_image=bool(image),
        image=image if isinstance(image, str) and image else None,
        subject=_optional(row, "subject", place),
        grade=_grade(row.get("grade"), place),
        lecture=_optional(row, "lecture", place) or "",
        solution=_optional(row, "solution", place) or "",
    )


def _optional(row: dict[str, Any], key: str, place: str) -> str | None:
    """A text that may be missing."""
    value = row.get(key)
    if value is not None and not isinstance(value, str):
        raise UserError(f"{place}: {key} is {reprlib.repr(value)}. Use a text.")
    return value


def _text(choice: Any, place: str) -> str:
    """An option as text."""
    if isinstance(choice, bool) or not isinstance(choice, str | int | float):
        raise UserError(f"{place}: a choice is {reprlib.repr(choice)}. Use a text or a number.")
    return str(choice)


def _grade(grade: Any, place: str) -> int | None:
    """`grade7` -> 7."""
    if grade is None:
        return None
    text = str(grade).removeprefix("grade")
    if not text.isdigit() or not 1 <= int(text) <= 12:
        raise UserError(f"{place}: grade is {reprlib.repr(grade)}. Use grade1 to grade12.")
    return int(text)
