"""How an official tensor holds weights of ours: as it is, with other rows, or several in one.

A tensor that holds several is cut before the shares of tensor-parallel files are joined, and the rows are
turned after: so nothing larger than one weight of ours is ever copied.

Dimensions: N rows; I intermediate size; H hidden size;
``...`` any shape.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Shaped
from torch import Tensor

from llama_adapter.checkpoints.rotary import halves_to_pairs, pairs_to_halves


class Layout:
    """A tensor that holds one weight, as it is."""

    def cut(self, piece: Shaped[Tensor, "..."], index: int) -> Shaped[Tensor, "..."]:
        """What belongs to weight ``index`` in one file's share."""
        del index
        return piece

    def turn(self, weight: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
        """From the official order to ours, for one whole weight."""
        return weight

    def turn_back(self, weight: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
        """The inverse of ``turn``."""
        return weight

    def paste(self, parts: Sequence[Shaped[Tensor, "..."]]) -> Shaped[Tensor, "..."]:
        """One file's share from what belongs to each weight; the inverse of ``cut``."""
        return parts[0]


@dataclass(frozen=True)
class Rotated(Layout):
    """Queries or keys in Meta's order of rows."""

    heads: int
    """Query heads, or key/value heads for keys."""

    def turn(self, weight: Shaped[Tensor, "N ..."]) -> Shaped[Tensor, "N ..."]:
        """From pairs to halves."""
        return pairs_to_halves(weight, self.heads)

    def turn_back(self, weight: Shaped[Tensor, "N ..."]) -> Shaped[Tensor, "N ..."]:
        """From halves to pairs."""
        return halves_to_pairs(weight, self.heads)


@dataclass(frozen=True)
class StackedExperts(Layout):
    """One map of all experts of a layer, their rows one after another."""

    experts: int
    """How many."""
    transposed: bool
    """Whether the rows are the map's inputs."""

    def cut(self, piece: Shaped[Tensor, "N H"], index: int) -> Shaped[Tensor, "I H"]:
        """Rows of one expert."""
        return piece.unflatten(0, (self.experts, -1))[index]

    def turn(self, weight: Shaped[Tensor, "I H"]) -> Shaped[Tensor, "..."]:
        """Rows become outputs."""
        return weight.T if self.transposed else weight

    def turn_back(self, weight: Shaped[Tensor, "..."]) -> Shaped[Tensor, "I H"]:
        """The transpose is its own inverse."""
        return self.turn(weight)

    def paste(self, parts: Sequence[Shaped[Tensor, "I H"]]) -> Shaped[Tensor, "N H"]:
        """The experts, one after another."""
        return torch.cat(list(parts))


@dataclass(frozen=True)
class StackedRows(Layout):
    """Several maps of one shape, their rows one after another; weights or biases."""

    parts: int
    """How many."""

    def cut(self, piece: Shaped[Tensor, "N ..."], index: int) -> Shaped[Tensor, "I ..."]:
        """Rows of one of them."""
        return piece.unflatten(0, (self.parts, -1))[index]

    def paste(self, parts: Sequence[Shaped[Tensor, "I ..."]]) -> Shaped[Tensor, "N ..."]:
        """All of them."""
        return torch.cat(list(parts))


@dataclass(frozen=True)
class GroupedQkv(Layout):
    """Queries, keys and values in one map: for each key/value head its queries, the key, the value."""

    groups: int
    """Key/value heads."""
    queries: int
    """Query heads that share one."""

    def cut(self, piece: Shaped[Tensor, "N ..."], index: int) -> Shaped[Tensor, "..."]:
        """All queries (0), keys (1) or values (2)."""
        grouped = piece.unflatten(0, (self.groups, self.queries + 2, -1))
        return grouped.split([self.queries, 1, 1], dim=1)[index].flatten(0, 2)

    def paste(self, parts: Sequence[Shaped[Tensor, "..."]]) -> Shaped[Tensor, "N ..."]:
        """The three, interleaved by key/value head."""
        sizes = (self.queries, 1, 1)
        grouped = [
            part.unflatten(0, (self.groups, size, -1)) for part, size in zip(parts, sizes, strict=True)
        ]
        return torch.cat(grouped, dim=1).flatten(0, 2)


@dataclass(frozen=True, kw_only=True)
class Stored:
    """An official tensor and the weights of ours in it."""

    name: str
    """In the official files."""
    shape: tuple[int, ...]
    """Joined from all files."""
    weights: Mapping[str, tuple[int, ...]]
    """Names of ours -> shapes, in the order in which the tensor holds them."""
    layout: Layout = field(default_factory=Layout)
    """How it holds them."""
