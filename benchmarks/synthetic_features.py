"""Synthetic embeddings of two kinds, row by row the same whoever makes them.

Both are normalised sums of structure and Gaussian noise; queries are further draws of the same kind.

* ``clustered``: centres drawn on the sphere, one for every 300 rows, of unequal weight (log-normal); noise of
  0.7 of a centre's length. A neighbour is a row of the same cluster (cosine about 0.7), and which of its
  rows are nearest is decided by noise in all dimensions.
* ``hard``: 64 latent dimensions whose spread falls with the root of their number; in them a broad Gaussian
  (0.8) around weak centres (0.6), one for every 1,000 rows; turned into all dimensions, and noise of the same
  length as all of that on top. Clusters overlap: neighbours (cosine about 0.4) come from many of them.

Dimensions: N rows, E width, L latent dimensions.
"""

from collections.abc import Iterator
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from imagebind_llm.cache.parts import Block
from imagebind_llm.cache.rows import Rows

Kind = Literal["clustered", "hard"]
KINDS: tuple[Kind, ...] = ("clustered", "hard")

_NOISE = {"clustered": 0.7, "hard": 1.0}
_ROWS_PER_CENTRE = {"clustered": 300, "hard": 1000}
_CENTRES, _SPREAD = 0.6, 0.8
_LATENT = 64


class SyntheticRows(Rows):
    """Rows of one kind, as a source of a cache."""

    block = 4096

    def __init__(self, kind: Kind, items: int, dimension: int = 1024) -> None:
        self.kind, self.items, self.dimension = kind, items, dimension
        self.digest = f"synthetic {kind} {items} x {dimension}"

    def blocks(self, first: int, stop: int) -> Iterator[Block]:
        """Blocks of rows."""
        for block in range(first, stop):
            items = self.range_of(block)
            names = [f"{self.kind}:{row}" for row in items]
            yield Block(names=names, features=self._drawn(len(items), [1, block]), skipped={})

    def queries(self, count: int) -> Float[Tensor, "N E"]:
        """Embeddings that are not rows."""
        return torch.nn.functional.normalize(self._drawn(count, [2]), dim=-1)

    @cached_property
    def _world(self) -> dict[str, Float[np.ndarray, "..."]]:
        """What all rows share."""
        random = np.random.default_rng([0, self.items])
        centres = max(4, self.items // _ROWS_PER_CENTRE[self.kind])
        if self.kind == "clustered":
            weights = random.lognormal(0, 1, centres)
            return {"centres": _sphere(random, centres, self.dimension), "weights": weights / weights.sum()}
        latent = min(_LATENT, self.dimension // 2)
        spread = 1 / np.sqrt(1 + np.arange(latent))
        basis = np.linalg.qr(random.standard_normal((self.dimension, latent)))[0].T
        return {
            "centres": random.standard_normal((centres, latent), dtype=np.float32),
            "basis": ((spread / np.linalg.norm(spread))[:, None] * basis).astype(np.float32),
            "weights": np.full(centres, 1 / centres),
        }

    def _drawn(self, count: int, seed: list[int]) -> Float[Tensor, "N E"]:
        """So many embeddings."""
        random = np.random.default_rng([*seed, self.items])
        world = self._world
        structure = world["centres"][random.choice(len(world["centres"]), count, p=world["weights"])]
        if self.kind == "hard":
            latent = random.standard_normal(structure.shape, dtype=np.float32)
            structure = (_CENTRES * structure + _SPREAD * latent) @ world["basis"]
        noise = random.standard_normal((count, self.dimension), dtype=np.float32) / np.sqrt(self.dimension)
        return torch.from_numpy(structure + np.float32(_NOISE[self.kind]) * noise.astype(np.float32))


def _sphere(random: np.random.Generator, count: int, dimension: int) -> Float[np.ndarray, "N E"]:
    """Points on the unit sphere."""
    points = random.standard_normal((count, dimension), dtype=np.float32)
    found: np.ndarray = points / np.linalg.norm(points, axis=1, keepdims=True)
    return found
