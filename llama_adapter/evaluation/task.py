"""What a task is: questions for a model, and scores for its answers; and the run that ends in a table.

Answers come from a file, or from a model that is run here (`answering.py`, loaded only then); a task does not
know which. Settings that all tasks share are here, the others beside each task.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, TypeVar, runtime_checkable

from rich.console import Console

from llama_adapter.errors import UserError
from llama_adapter.evaluation.answer_fields import answers_of
from llama_adapter.evaluation.files import write_lines
from llama_adapter.evaluation.joining import join
from llama_adapter.evaluation.predictions import Predictions, read_predictions
from llama_adapter.evaluation.question import Question
from llama_adapter.evaluation.results import Scores, print_scores, write_scores
from llama_adapter.evaluation.values import listed
from llama_adapter.generation.config import SessionConfig
from llama_adapter.limits import Count

Entry = TypeVar("Entry")


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

    answer_field: str | None = None
    """The field of a record of predictions that holds the answer; found by itself where only one can."""

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
        rows = [question.to_dict() for question in task.questions()]
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
    _check_other(config, path)
    predictions = read_predictions(path, config.model)
    with Console(stderr=True).status(f"scoring {len(predictions.records):,} answers"):
        scores = evaluate(task, predictions, config)
    print_scores(scores, console)
    if config.output is not None:
        items = write_scores(scores, config.output)
        console.print(f"written: {Path(config.output)} and {items}", markup=False, soft_wrap=True)


def _check_other(config: EvaluateConfig, path: str) -> None:
    """Refuses a file of references as the file of predictions: its right answers would be scored."""
    references = getattr(config, "references", None)
    if (
        isinstance(references, str)
        and Path(references).expanduser().resolve() == Path(path).expanduser().resolve()
    ):
        raise UserError(f"{path}: is both references and predictions. Use the file with the model's answers.")


def evaluate(task: Task, predictions: Predictions, config: EvaluateConfig) -> Scores:
    """Scores predictions after checking that they belong to the questions.

    Args:
        task: what to evaluate.
        predictions: the answers.
        config: whether a question without an answer is wrong, and where answers stand.

    Raises:
        UserError: questions and answers do not match.
    """
    questions, place = list(task.questions()), predictions.place
    joined = join(questions, predictions.records, place, limited=config.limit is not None)
    answers = answers_of(questions, predictions.records, joined.places, place, config.answer_field)
    notes = [*joined.notes, *_left_out(questions, answers, predictions, config)]
    if predictions.stated:
        stated = ", ".join(f"{key} {value}" for key, value in predictions.stated.items())
        notes.append(f"The file of predictions states about itself: {stated}.")
    scores = task.score(answers)
    scores.notes.extend(notes)
    return scores


def _left_out(
    questions: Sequence[Question],
    answers: Mapping[str, Any],
    predictions: Predictions,
    config: EvaluateConfig,
) -> list[str]:
    """What does not match, for the report.

    Raises:
        UserError: a question has no answer, and may not.
    """
    missing = [question.id for question in questions if question.id not in answers]
    if missing and config.missing == "error":
        raise UserError(
            f"{len(missing)} of {len(questions)} questions have no prediction: {listed(missing)}. "
            "Add them, or use --missing wrong."
        )
    notes = [f"{len(missing)} questions without a prediction count as wrong."] if missing else []
    if unknown := len(predictions.records) - len(questions) + len(missing):
        notes.append(f"{unknown} predictions belong to no question here and were left out.")
    return notes
