"""`evaluate anls`: average normalised Levenshtein similarity, for DocVQA and its relatives.

One minus the edit distance over the longer length, to the nearest reference; below 0.5 it is 0. Case and
spare spaces do not count.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llama_adapter.evaluation.items import ItemsConfig, ItemsTask, answer_text, mean
from llama_adapter.evaluation.results import Row, Scores
from llama_adapter.evaluation.task import run

THRESHOLD = 0.5
"""A lower similarity counts as 0."""


@dataclass(kw_only=True)
class ANLSConfig(ItemsConfig):
    """ANLS, from 0 to 1."""


@dataclass
class ANLS(ItemsTask):
    """The task."""

    name = "anls"

    def score(self, answers: Mapping[str, Any]) -> Scores:
        """The mean over all questions."""
        items: list[dict[str, Any]] = []
        for item in self.items:
            said = answer_text(answers, item)
            score = similarity(said, item.texts, self.config.as_published)
            items.append({"id": item.id, "answer": said, "score": score})
        row = Row("ANLS", mean([item["score"] for item in items]), len(items), digits=4)
        return Scores("ANLS", [row], items, [], self.settings())


def similarity(prediction: str, references: Sequence[str], as_published: bool = False) -> float:
    """How near an answer comes to the nearest reference.

    Args:
        prediction: what the model said.
        references: what is right.
        as_published: divide by the length before spaces were collapsed.

    Returns:
        0, or a value from 0.5 to 1.
    """
    said = _plain(prediction)
    best = 0.0
    for reference in references:
        wanted = _plain(reference)
        pair = (prediction, reference) if as_published else (said, wanted)
        longest = max(map(len, pair))
        best = max(best, 1 - distance(said, wanted) / longest if longest else 1.0)
    return best if best >= THRESHOLD else 0.0


def distance(first: str, second: str) -> int:
    """Insertions, deletions and replacements from one text to the other."""
    row = list(range(len(second) + 1))
    for number, one in enumerate(first, start=1):
        above, row[0] = row[0], number
        for place, other in enumerate(second, start=1):
            above, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, above + (one != other))
    return row[-1]


def _plain(text: str) -> str:
    """A text without case and spare spaces."""
    return " ".join(text.lower().split())


def anls(config: ANLSConfig) -> int:
    """The `evaluate anls` verb.

    Raises:
        UserError: the questions or the predictions cannot be used.
    """
    return run(ANLS(config), config)
