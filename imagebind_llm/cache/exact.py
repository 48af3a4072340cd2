"""Exact neighbours, by comparing with every stored embedding.

Rows are taken from the map a piece at a time, so memory does not grow with their number. This is what indexes
are measured against; it needs no faiss.

Dimensions: B queries, K neighbours, E width.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from imagebind_llm.cache.parts import StoredFeatures

_CHUNK_BYTES = 64 << 20


class ExactSearch:
    """Compares a query with all rows."""

    def __init__(self, features: StoredFeatures) -> None:
        self.features = features

    def search(
        self, queries: Float[Tensor, "B E"], k: int
    ) -> tuple[Float[Tensor, "B K"], Int[Tensor, "B K"], Float[Tensor, "B K E"]]:
        """Similarities (descending), rows and their embeddings."""
        similarities, rows = exact_neighbours(self.features, queries, k)
        return similarities, rows, self.features.rows(rows)


def exact_neighbours(
    features: StoredFeatures, queries: Float[Tensor, "B E"], k: int
) -> tuple[Float[Tensor, "B K"], Int[Tensor, "B K"]]:
    """Similarities (descending) and rows of the k nearest."""
    similarities = torch.empty(len(queries), 0)
    rows = torch.empty(len(queries), 0, dtype=torch.long)
    start = 0
    for chunk in features.chunks(max(1, _CHUNK_BYTES // (4 * features.dimension))):
        found = queries @ chunk.T
        values, places = found.topk(min(k, len(chunk)))
        similarities = torch.cat([similarities, values], 1)
        rows = torch.cat([rows, places + start], 1)
        similarities, rows = nearest(similarities, rows, k)
        start += len(chunk)
    return similarities, rows


def nearest(
    similarities: Float[Tensor, "B C"], rows: Int[Tensor, "B C"], k: int
) -> tuple[Float[Tensor, "B K"], Int[Tensor, "B K"]]:
    """The k best of some rows, best first; equal ones in the order of the rows."""
    order = rows.argsort(1)
    best = similarities.gather(1, order).sort(dim=1, descending=True, stable=True).indices
    order = order.gather(1, best)[:, :k]
    return similarities.gather(1, order), rows.gather(1, order)
