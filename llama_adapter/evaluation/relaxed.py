"""`evaluate relaxed`: ChartQA's relaxed accuracy: a number may be off by five percent of the reference.

`50%` is 0.5, `1,000` is no number, as in ChartQA's own rule; what is no number must be equal but for case.
Unlike there, a reference of 0 is compared as a number, so that `0.0` is right.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llama_adapter.evaluation.items import ItemsConfig, ItemsTask, answer_text
from llama_adapter.evaluation.results import Scores, share
from llama_adapter.evaluation.task import run

TOLERANCE = 0.05


@dataclass(kw_only=True)
class RelaxedConfig(ItemsConfig):
    """Relaxed accuracy in percent."""


@dataclass
class Relaxed(ItemsTask):
    """The task."""

    name = "relaxed"

    def score(self, answers: Mapping[str, Any]) -> Scores:
        """Accuracy over all questions."""
        check = relaxed_match_as_published if self.config.as_published else relaxed_match
        items: list[dict[str, Any]] = []
        for item in self.items:
            said = answer_text(answers, item)
            correct = any(check(said, reference) for reference in item.texts)
            items.append({"id": item.id, "answer": said, "correct": correct})
        hits = [bool(item["correct"]) for item in items]
        return Scores("Relaxed accuracy", [share("accuracy", hits)], items, [], self.settings())


def relaxed_match(prediction: str, reference: str) -> bool:
    """Whether an answer is right.

    Args:
        prediction: what the model said.
        reference: what is right.
    """
    said, wanted = as_number(prediction), as_number(reference)
    if said is None or wanted is None:
        return prediction.strip().lower() == reference.strip().lower()
    return abs(said - wanted) <= TOLERANCE * abs(wanted)


def relaxed_match_as_published(prediction: str, reference: str) -> bool:
    """The same with the quirk of the published code: the tolerance is five percent of the *prediction*.

    Args:
        prediction: what the model said.
        reference: what is right.
    """
    said, wanted = as_number(prediction), as_number(reference)
    if said and wanted is not None:
        return abs(wanted - said) / abs(said) <= TOLERANCE
    return prediction.strip().lower() == reference.strip().lower()


def as_number(text: str) -> float | None:
    """The number that a text is, percents as shares; None for anything else, infinities included."""
    text = text.strip()
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        return None
    return value if abs(value) < float("inf") else None


def relaxed(config: RelaxedConfig) -> int:
    """The `evaluate relaxed` verb.

    Raises:
        UserError: the questions or the predictions cannot be used.
    """
    return run(Relaxed(config), config)
