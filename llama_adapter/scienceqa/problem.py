"""A question of ScienceQA, from a record with the fields of the official `problems.json`.

Fields that a source lacks stay unknown. Where records come from is not known here.
"""

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
        raise UserError(f"{place}: {str(row)[:80]!r} is no question. Add question and two or more choices.")
    if not isinstance(answer, int) or not 0 <= answer < len(choices):
        raise UserError(
            f"{place}: answer is {answer!r} for {len(choices)} choices. Use the index of one, from 0."
        )
    image = row.get("image")
    return Problem(
        id=pid,
        question=row["question"],
        choices=[str(choice) for choice in choices],
        answer=answer,
        hint=row.get("hint") or "",
        has_image=bool(image),
        image=image if isinstance(image, str) and image else None,
        subject=row.get("subject"),
        grade=_grade(row.get("grade"), place),
        lecture=row.get("lecture") or "",
        solution=row.get("solution") or "",
    )


def _grade(grade: Any, place: str) -> int | None:
    """`grade7` -> 7."""
    if grade is None:
        return None
    text = str(grade).removeprefix("grade")
    if not text.isdigit() or not 1 <= int(text) <= 12:
        raise UserError(f"{place}: grade is {grade!r}. Use grade1 to grade12.")
    return int(text)
