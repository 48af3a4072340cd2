"""ScienceQA's prompt formats by their names, since results depend on which one was used.

A name says in which order the input's parts come and what the answer consists of: Context, Question, Multiple
options - Answer, Lecture, Explanation. CQM-A is what LLaVA-1.5 and this package ask; QCM-ALE is what the data
set's authors gave GPT-3 ("CoT"), QCM-LEA what LLaVA was first trained on. `accessory` is the text in
LLaMA2-Accessory's annotation files, and `plain` the question with its options. It does not know models.
"""

from collections.abc import Callable
from string import ascii_uppercase as LETTERS
from typing import Literal

from llama_adapter.scienceqa.problem import Problem

Format = Literal["CQM-A", "CQM-ALE", "CQM-LEA", "QCM-A", "QCM-ALE", "QCM-LEA", "accessory", "plain"]
"""The names of the formats."""

OptionForm = Literal["auto", "letter", "text"]
"""What stands for an option."""


def build_prompt(problem: Problem, name: Format, caption: str = "") -> str:
    """What to ask.

    Args:
        problem: the question.
        name: the format.
        caption: the picture in words, for models that do not see it; goes behind the hint.

    Returns:
        The prompt; with `CQM` and `QCM` it ends in `Answer:`.
    """
    order, _, _ = name.partition("-")
    return _INPUTS[order](problem, " ".join(filter(None, (problem.hint, caption))).strip())


def build_answer(problem: Problem, name: Format) -> str:
    """What a model should answer, as training data have it.

    Args:
        problem: the question.
        name: the format.
    """
    said = build_candidates(problem, name)[problem.answer]
    parts = name.partition("-")[2]
    why = " ".join(filter(None, (problem.lecture, problem.solution)))
    if parts in ("", "A") or not why:
        return said
    return f"{why} {said}" if parts == "LEA" else f"{said} BECAUSE: {why}"


def build_candidates(problem: Problem, name: Format, form: OptionForm = "auto") -> list[str]:
    """What says each option, without explanation.

    Args:
        problem: the question.
        name: the format.
        form: the option's letter or text, or what the format has a model answer.
    """
    if form == "text":
        return problem.choices
    sentence = form == "auto" and "-" in name
    letters = LETTERS[: len(problem.choices)]
    return [f"The answer is {letter}." if sentence else letter for letter in letters]


def _lettered(problem: Problem) -> str:
    """`(A) north (B) south`."""
    return " ".join(f"({letter}) {text}" for letter, text in zip(LETTERS, problem.choices, strict=False))


def _listed(problem: Problem) -> str:
    """An option per line."""
    return "\n".join(f"{letter}. {text}" for letter, text in zip(LETTERS, problem.choices, strict=False))


def _context_first(problem: Problem, context: str) -> str:
    """CQM."""
    return (
        f"Context: {context or 'N/A'}\nQuestion: {problem.question}\nOptions: {_lettered(problem)}\nAnswer:"
    )


def _question_first(problem: Problem, context: str) -> str:
    """QCM."""
    return (
        f"Question: {problem.question}\nContext: {context or 'N/A'}\nOptions: {_lettered(problem)}\nAnswer:"
    )


def _accessory(problem: Problem, context: str) -> str:
    """LLaMA2-Accessory's, with the stray quotation mark of its data."""
    before = f"Context:\n{context}\n" if context else ""
    after = 'Answer with the option"s letter from the given choices directly.'
    return f"{before}Question:\n{problem.question}\nChoices:\n{_listed(problem)}\n{after}"


def _plain(problem: Problem, context: str) -> str:
    """The question and its options, nothing else."""
    return "\n".join(filter(None, (context, problem.question, _listed(problem))))


_INPUTS: dict[str, Callable[[Problem, str], str]] = {
    "CQM": _context_first,
    "QCM": _question_first,
    "accessory": _accessory,
    "plain": _plain,
}
"""First half of a format's name -> what makes the input of a question and its context."""
