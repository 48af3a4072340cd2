"""What a task is: questions for a model, and scores for its answers; and the run that ends in a table.

Answers come from a file, or from a model that is run here (`answering.py`, loaded only then); a task does not
know which. Settings that all tasks share are here, the others beside each task.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, TypeVar, runtime_checkable

from rich.console import Console

from llama_adapter.errors import UserError
from llama_adapter.evaluation.files import write_lines
from llama_adapter.evaluation.predictions import Predictions, pair, read_predictions
from llama_adapter.evaluation.results import Scores, print_scores, write_scores
from llama_adapter.generation.config import SessionConfig
from llama_adapter.limits import Count

Entry = TypeVar("Entry")


@dataclass(frozen=True)
class Question:
    """One thing to ask a model."""

    id: str
    """Names the question in predictions and results."""
    prompt: str
    """What to ask, complete; empty where a task has no text of its own."""
    image: str | None = None
    """The picture that belongs to it, if it is a file."""
    options: list[str] = field(default_factory=list)
    """The answers to choose from, where there are some."""
    candidates: list[str] = field(default_factory=list)
    """What a model says for each option: the texts whose likelihood is scored."""
    has_image: bool = False
    """Whether a picture belongs to it, be it a file or inside of the data set."""


@runtime_checkable
class Task(Protocol):
    """A benchmark: what to ask, and what the answers are worth."""

    name: ClassVar[str]

    def questions(self) -> Sequence[Question]:
        """What to ask a model, in a fixed order."""

    def score(self, answers: Mapping[str, Any]) -> Scores:
        """Scores answers; a question without one is wrong, an answer without question is not looked at."""


@dataclass(kw_only=True)
class EvaluateConfig(SessionConfig):
    """What every task can do: score a file of --predictions, or a model's answers (--base, --adapter)."""

    predictions: str | None = None
    """File with the answers to score: JSON or JSONL, a mapping of id to answer or records with both."""

    model: str | None = None
    """Whose answers to take from a file of predictions that holds those of several models."""

    questions: str | None = None
    """JSONL file to write the questions to, with `id`, `prompt`, `image` and `options`, to ask a model."""

    output: str | None = None
    """JSON file for the scores; one record per question goes beside it, as `.items.jsonl`. A model's answers
    are kept there as they come: started again, a run asks only what is missing."""

    limit: Count | None = None
    """Only the first questions, this many."""

    ignore_images: bool = False
    """Ask a text model about pictures too, without showing them, instead of refusing such questions."""

    missing: Literal["error", "wrong"] = "error"
    """What a question without a prediction is: an error that names it, or a wrong answer."""

    def __post_init__(self) -> None:
        """Checks that there is one source of answers, or something else to do."""
        super().__post_init__()
        sources = [name for name in ("predictions", "base", "adapter") if getattr(self, name)]
        if "predictions" in sources and len(sources) > 1:
            raise UserError(
                f"Answers would come from {' and '.join(sources)}. "
                "Use either --predictions FILE, or --base and --adapter."
            )
        if not sources and self.questions is None:
            raise UserError(
                "None of predictions, base, adapter and questions is set. Use --predictions FILE to score "
                "answers, --base or --adapter FOLDER to let a model answer, or --questions FILE to write "
                "what to ask."
            )
        if self.model is not None and self.predictions is None:
            raise UserError(
                f"model is {self.model!r}, which chooses from a file of predictions. "
                "Use --base or --adapter for a model that is to answer."
            )
        if self.limit is not None and self.limit < 1:
            raise UserError(f"limit is {self.limit}. Use 1 or more.")

    @property
    def runs_model(self) -> bool:
        """Whether a model answers, rather than a file."""
        return self.base is not None or bool(self.adapter)

    def limited(self, entries: list[Entry]) -> list[Entry]:
        """Those questions that are asked."""
        return entries[: self.limit]


def run(task: Task, config: EvaluateConfig) -> int:
    """Writes questions, scores predictions or a model, prints and writes the result.

    Args:
        task: what to evaluate.
        config: where answers come from and results go.

    Returns:
        The exit code.

    Raises:
        UserError: a file or a model cannot be used, or questions and answers do not match.
    """
    console = Console(highlight=False)
    if config.questions is not None:
        rows = [asdict(question) for question in task.questions()]
        write_lines(config.questions, rows)
        console.print(f"{len(rows)} questions in {config.questions}", markup=False, soft_wrap=True)
    if config.predictions is not None:
        _score_file(task, config, config.predictions, console)
    elif config.runs_model:
        from llama_adapter.evaluation.answering import evaluate_model

        evaluate_model(task, config, console)
    return 0


def _score_file(task: Task, config: EvaluateConfig, path: str, console: Console) -> None:
    """Scores a file of predictions."""
    predictions = read_predictions(path, config.model)
    with Console(stderr=True).status(f"scoring {len(predictions.answers):,} answers"):
        scores = evaluate(task, predictions, allow_missing=config.missing == "wrong")
    print_scores(scores, console)
    if config.output is not None:
        items = write_scores(scores, config.output)
        console.print(f"written: {Path(config.output)} and {items}", markup=False, soft_wrap=True)


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
