"""`evaluate vqa`: VQA accuracy, for VQAv2, OKVQA, VizWiz, TextVQA.

An answer is as right as three of ten people are many: for each person left out in turn, the share (at most
1) of three that agree among the others, averaged. Both sides are normalised alike. With fewer than four
reference answers the three become as many as there are others; with one it is a plain match.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llama_adapter.evaluation.items import ItemsConfig, ItemsTask, answer_text, mean
from llama_adapter.evaluation.results import Row, Scores
from llama_adapter.evaluation.task import run
from llama_adapter.evaluation.values import single_text
from llama_adapter.evaluation.vqa_text import normalise, strip_punctuation

AGREEING = 3
"""So many people make an answer right."""


@dataclass(kw_only=True)
class VQAConfig(ItemsConfig):
    """VQA accuracy in percent."""


@dataclass
class VQA(ItemsTask):
    """The task."""

    name = "vqa"

    def score(self, answers: Mapping[str, Any]) -> Scores:
        """Accuracy over all questions, and by type of answer where the file has it."""
        accuracy = vqa_accuracy_as_published if self.config.as_published else vqa_accuracy
        items: list[dict[str, Any]] = []
        for item in self.items:
            said = answer_text(answers, item)
            items.append(
                {
                    "id": item.id,
                    "answer": said,
                    "read": normalise(said, self.config.as_published),
                    "type": item.row.get("answer_type"),
                    "score": accuracy(said, item.references),
                }
            )
        kinds = sorted({str(item["type"]) for item in items if item["type"] is not None})
        rows = [_row(kind, [item["score"] for item in items if item["type"] == kind]) for kind in kinds]
        return Scores(
            "VQA", [*rows, _row("all", [item["score"] for item in items])], items, [], self.settings()
        )


def vqa_accuracy(prediction: str, answers: Sequence[Any]) -> float:
    """VQA accuracy of one answer.

    Args:
        prediction: what the model said.
        answers: what people said: texts, or records with `answer`.

    Returns:
        From 0 to 1.
    """
    said = normalise(prediction)
    given = [normalise(_text(answer)) for answer in answers]
    if len(given) == 1:
        return float(said == given[0])
    needed = min(AGREEING, len(given) - 1)
    matches = given.count(said)
    return mean([min(1.0, (matches - (answer == said)) / needed) for answer in given])


def vqa_accuracy_as_published(prediction: str, answers: Sequence[Any]) -> float:
    """The same with the quirks of the published code.

    Reference answers lose their punctuation only if they are not all the same, and keep case and number
    words; the others of an answer are those whose whole record differs, so equal records vanish together.

    Args:
        prediction: what the model said.
        answers: what people said: texts, or records with `answer` and `answer_id`.
    """
    records: list[Any] = [
        {**(a if isinstance(a, dict) else {"answer_id": n}), "answer": _text(a)}
        for n, a in enumerate(answers)
    ]
    if len({record["answer"] for record in records}) > 1:
        for record in records:
            record["answer"] = strip_punctuation(record["answer"], as_published=True)
    said = normalise(prediction, as_published=True)
    scores = []
    for record in records:
        others = [other for other in records if other != record]
        scores.append(min(1.0, sum(other["answer"] == said for other in others) / AGREEING))
    return mean(scores)


def _text(answer: Any) -> str:
    """A reference answer as text."""
    return single_text(answer, "A reference answer")


def _row(name: str, scores: list[float]) -> Row:
    """A mean in percent."""
    return Row(name, 100 * mean(scores), len(scores))


def vqa(config: VQAConfig) -> int:
    """The `evaluate vqa` verb.

    Raises:
        UserError: the questions or the predictions cannot be used.
    """
    return run(VQA(config), config)
