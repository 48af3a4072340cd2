"""Vectors of classes, the classes nearest to every record, and what they are worth.

Unusual: a class's vector has the length of its prompts' embeddings, so that ImageBind's products are logits,
as in ``retrieval``. The order of the classes does not depend on lengths.

Dimensions: R records, K classes, P prompts of a class, E width of the space.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from imagebind_llm.zero_shot.classes import Classes, Record
from llama_adapter.evaluation.results import Row, Scores, percent, share

TOP = 5


@dataclass(frozen=True)
class Ranking:
    """How near the classes are to every record."""

    probability: Float[Tensor, "R K"]
    """Softmax of the products."""
    order: Int[Tensor, "R K"]
    """Classes, the nearest first; of equally near ones the first."""
    labels: Int[Tensor, " R"]
    """The right classes."""

    @property
    def rank(self) -> Int[Tensor, " R"]:
        """How many classes are nearer than the right one."""
        return (self.order == self.labels[:, None]).int().argmax(1)


def class_vector(embeddings: Float[Tensor, "P E"]) -> Float[Tensor, " E"]:
    """The mean direction of a class's prompts, or of examples, with their mean length."""
    direction = functional.normalize(functional.normalize(embeddings, dim=-1).mean(0), dim=0)
    return direction * embeddings.norm(dim=-1).mean()


def rank_classes(
    embeddings: Float[Tensor, "R E"], classes: Float[Tensor, "K E"], labels: Sequence[int]
) -> Ranking:
    """Compares every record with every class.

    Args:
        embeddings: of the records, with their lengths.
        classes: their vectors.
        labels: the right class of each record.
    """
    logits = embeddings @ classes.T
    cosine = functional.normalize(embeddings, dim=-1) @ functional.normalize(classes, dim=-1).T
    order = cosine.argsort(dim=1, descending=True, stable=True)
    return Ranking(logits.softmax(-1), order, torch.tensor(labels))


def scores_of(name: str, classes: Classes, records: Sequence[Record], ranking: Ranking) -> Scores:
    """Accuracies over all records and by class, and a line per record.

    Args:
        name: of the table.
        classes: what there was to choose from.
        records: those that could be read.
        ranking: of these.
    """
    rank = ranking.rank
    rows = [share("top-1", (rank < 1).tolist())]
    if len(classes.folders) > TOP:
        rows.append(share(f"top-{TOP}", (rank < TOP).tolist()))
    by_class = [
        share(folder, (rank[ranking.labels == label] < 1).tolist())
        for label, folder in enumerate(classes.folders)
    ]
    present = [row.value for row in by_class if row.count]
    rows.append(Row("mean over classes", sum(present) / len(present), len(records)))
    rows.append(Row("chance", percent(1, len(classes.folders)), len(records)))
    items = [_item(classes, record, ranking, number) for number, record in enumerate(records)]
    return Scores(name, [*rows, *by_class], items)


def confusion(ranking: Ranking, classes: int) -> list[list[int]]:
    """Counts: row, the right class; column, the nearest one."""
    table = torch.zeros(classes, classes, dtype=torch.long)
    table.index_put_((ranking.labels, ranking.order[:, 0]), torch.tensor(1), accumulate=True)
    counts: list[list[int]] = table.tolist()
    return counts


def _item(classes: Classes, record: Record, ranking: Ranking, number: int) -> dict[str, Any]:
    """One record's line."""
    best = ranking.order[number, :TOP].tolist()
    return {
        "id": record.id,
        "class": classes.folders[record.label],
        "predicted": classes.folders[best[0]],
        "correct": best[0] == record.label,
        "rank": int(ranking.rank[number]) + 1,
        "top": [[classes.folders[k], round(float(ranking.probability[number, k]), 6)] for k in best],
    }
