"""What a task is: questions for a model, and scores for its answers; and the run from a file to a table.

A task does not know where answers come from. Here they come from a file; a model can stand in its place,
because all it needs is the list of questions. Settings that all tasks share are here, the others beside each
task.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from rich.console import Console

from llama_adapter.errors import UserError
from llama_adapter.evaluation.files import write_lines
from llama_adapter.evaluation.predictions import Predictions, pair, read_predictions
from llama_adapter.evaluation.results import Scores, print_scores, write_scores


@dataclass(frozen=True)
class Question:
    """One thing to ask a model."""

    id: str
    """Names the question in predictions and results."""
    prompt: str
    """What to ask, complete; empty where a task has no text of its own."""
    image: str | None = None
    """The picture that belongs to it."""
    options: list[str] = field(default_factory=list)
    """The answers to choose from, where there are some."""


@runtime_checkable
class Task(Protocol):
    """A benchmark: what to ask, and what the answers are worth."""

    name: ClassVar[str]

    def questions(self) -> Sequence[Question]:
        """What to ask a model, in a fixed order."""

    def score(self, answers: Mapping[str, Any]) -> Scores:
        """Scores answers; a question without one is wrong, an answer without question is not looked at."""


@dataclass(kw_only=True)
class EvaluateConfig:
    """What every task can do."""

    predictions: str | None = None
    """File with the answers to score: JSON or JSONL, a mapping of id to answer or records with both."""

    model: str | None = None
    """Whose answers to take from a file that holds those of several models."""

    questions: str | None = None
    """JSONL file to write the questions to, with `id`, `prompt`, `image` and `options`, to ask a model."""

    output: str | None = None
    """JSON file for the scores; one record per question goes beside it, as `.items.jsonl`."""

    missing: Literal["error", "wrong"] = "error"
    """What a question without an answer is: an error that names it, or a wrong answer."""

    def __post_init__(self) -> None:
        """Checks that there is something to do."""
        if self.predictions is None and self.questions is None:
            raise UserError(
                "Neither predictions nor questions is set. Use --predictions FILE to score answers, "
                "or --questions FILE to write what to ask."
            )


def run(task: Task, config: EvaluateConfig) -> int:
    """Writes questions, scores predictions, prints and writes the result.

    Args:
        task: what to evaluate.
        config: where answers come from and results go.

    Returns:
        The exit code.

    Raises:
        UserError: a file cannot be used, or questions and answers do not match.
    """
    console = Console(highlight=False)
    if config.questions is not None:
        rows = [asdict(question) for question in task.questions()]
        write_lines(config.questions, rows)
        console.print(f"{len(rows)} questions in {config.questions}", markup=False, soft_wrap=True)
    if config.predictions is None:
        return 0
    predictions = read_predictions(config.predictions, config.model)
    with Console(stderr=True).status(f"scoring {len(predictions.answers):,} answers"):
        scores = evaluate(task, predictions, allow_missing=config.missing == "wrong")
    print_scores(scores, console)
    if config.output is not None:
        items = write_scores(scores, config.output)
        console.print(f"written: {Path(config.output)} and {items}", markup=False, soft_wrap=True)
    return 0


def evaluate(task: Task, predictions: Predictions, allow_missing: bool = False) -> Scores:
    """Scores predictions after checking that they belong to the questions.

    Args:
        task: what to evaluate.
        predictions: the answers.
        allow_missing: whether a question without an answer is wrong, instead of an error.

    Raises:
        UserError: questions and answers do not match.
    """
    ids = [question.id for question in task.questions()]
    notes = pair(ids, predictions.answers, allow_missing)
    if predictions.stated:
        stated = ", ".join(f"{key} {value}" for key, value in predictions.stated.items())
        notes.append(f"The file of predictions states about itself: {stated}.")
    scores = task.score(predictions.answers)
    scores.notes.extend(notes)
    return scores
