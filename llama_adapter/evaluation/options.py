"""Choosing an option by its likelihood: the settings, and scores of the option that a model finds likeliest.

Beside the answer that a model writes, the likelihoods of the options given the prompt tell what it would
choose if it had to. Two measures are usual and both are given: the plain log-likelihood, and that divided by
the number of characters, for options of different lengths. They are scored apart from written answers, by the
same task. How likelihoods are computed is not known here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from llama_adapter.errors import UserError
from llama_adapter.evaluation.question import Question
from llama_adapter.evaluation.results import Scores
from llama_adapter.evaluation.task import EvaluateConfig, Task
from llama_adapter.evaluation.values import listed
from llama_adapter.scienceqa import OptionForm

MEASURES = {"likelihood": "by likelihood", "likelihood_per_character": "by likelihood per character"}
"""Name of a measure in files -> in titles."""


@dataclass(kw_only=True)
class OptionsConfig(EvaluateConfig):
    """Settings of tasks whose questions have options."""

    score: Literal["generated", "likelihood", "both"] = "generated"
    """What is scored of a model: the answers it writes, the likelihood of each option, or both in tables of
    their own."""

    options_as: OptionForm = "auto"
    """Whose likelihood is scored: the option's `letter`, its `text`, or, with `auto`, what a model is to
    answer here."""

    def __post_init__(self) -> None:
        """Refuses likelihoods where no model is run."""
        super().__post_init__()
        if self.score != "generated" and not self.runs_model:
            raise UserError(
                f"score is {self.score!r}, but no model is run. "
                "Use --base or --adapter, or --score generated."
            )


def check_candidates(questions: Sequence[Question]) -> None:
    """Refuse questions that have nothing to choose from.

    Raises:
        UserError: names them.
    """
    bare = [q.id for q in questions if len(q.candidates) < 2 or len(q.candidates) != len(q.options)]
    if bare:
        raise UserError(
            f"{len(bare)} of {len(questions)} questions have no options to compare: {listed(bare)}. "
            "Use --score generated, or add `options` to the records."
        )


def choose(candidates: Sequence[str], log_likelihoods: Sequence[float]) -> dict[str, int]:
    """The option that each measure chooses; the first of equal ones.

    Args:
        candidates: what says each option.
        log_likelihoods: natural logarithms of their probabilities given the prompt.

    Returns:
        Name of the measure -> index of the option.
    """
    measured = {
        "likelihood": list(log_likelihoods),
        "likelihood_per_character": [
            value / max(len(text), 1) for text, value in zip(candidates, log_likelihoods, strict=True)
        ],
    }
    return {name: max(range(len(values)), key=values.__getitem__) for name, values in measured.items()}


def likelihood_scores(
    task: Task, questions: Sequence[Question], log_likelihoods: Mapping[str, Sequence[float]]
) -> dict[str, Scores]:
    """Scores what the likelihoods choose.

    Args:
        task: what to evaluate.
        questions: its questions.
        log_likelihoods: of every question's candidates, by its id.

    Returns:
        Name of the measure -> scores, titled so that they are not taken for those of written answers.
    """
    chosen = {
        question.id: choose(question.candidates, log_likelihoods[question.id]) for question in questions
    }
    found: dict[str, Scores] = {}
    for name, title in MEASURES.items():
        scores = task.score({key: options[name] for key, options in chosen.items()})
        found[name] = replace(scores, task=f"{scores.task}, {title}", items=_verdicts(scores.items))
    return found


def _verdicts(items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What was chosen for each question, and whether it is right."""
    return [{key: item[key] for key in ("id", "read", "correct")} for item in items]
