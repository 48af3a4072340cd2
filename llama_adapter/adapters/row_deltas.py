"""Linear deltas and norm weights that differ from row to row: those of several adapters, gathered.

Adapters may have different kinds of deltas on a map, in different orders. One sequence of steps serves them
all: it contains each adapter's order, and in a step of a kind that is not an adapter's turn, that adapter's
rows get the values under which the kind does nothing. So every step is one operation on all rows, whatever
the number of adapters.

Dimensions: A distinct adapters, R records, T tokens of all of a record's rows, N input width, M output width.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from llama_adapter.adapters.deltas import Delta
from llama_adapter.errors import UserError
from llama_adapter.forward_context import Routing


class WithValues:
    """A module as its own code sees it, but with other parameters: it may itself run in another thread."""

    def __init__(self, module: nn.Module, values: dict[str, Tensor]) -> None:
        self.module = module
        self.__dict__.update(values)

    def __getattr__(self, name: str) -> Any:
        """What is no parameter is the module's."""
        return getattr(self.module, name)


class RowDelta:
    """A delta of every record: computes as the kind does, with parameters that have a leading dimension R."""

    def __init__(self, delta: Delta, values: dict[str, Tensor]) -> None:
        self._kind: Any = type(delta)
        self._own = WithValues(delta, values)
        self.applies_to_prompts = delta.applies_to_prompts

    def on_input(self, x: Float[Tensor, "R T N"]) -> Float[Tensor, "R T N"]:
        """As ``Delta.on_input``."""
        entering: Tensor = self._kind.on_input(self._own, x)
        return entering

    def on_output(self, y: Float[Tensor, "R T M"], x: Float[Tensor, "R T N"]) -> Float[Tensor, "R T M"]:
        """As ``Delta.on_output``."""
        leaving: Tensor = self._kind.on_output(self._own, y, x)
        return leaving


def common_order(orders: Sequence[Sequence[str]]) -> list[tuple[str, frozenset[int]]]:
    """Steps that contain every order: kind, and the positions of the orders whose turn it is.

    A kind comes once where the orders agree, and again where they do not.
    """
    left = [list(order) for order in orders]
    steps = []
    while any(left):
        tails = [kind for order in left for kind in order[1:]]
        heads = [order[0] for order in left if order]
        kind = min(heads, key=tails.count)  # one that nobody needs later comes first
        turn = frozenset(place for place, order in enumerate(left) if order and order[0] == kind)
        left = [order[1:] if place in turn else order for place, order in enumerate(left)]
        steps.append((kind, turn))
    return steps


def deltas_of_rows(
    routing: Routing, orders: Mapping[str, Sequence[str]], deltas: Mapping[str, nn.ModuleDict]
) -> list[RowDelta]:
    """What each record's rows go through.

    Args:
        routing: the adapter of each record.
        orders: kinds of each adapter's deltas on this map, in order.
        deltas: the deltas of a kind, by adapter.

    Raises:
        UserError: a kind of delta cannot differ from row to row.
    """
    names = distinct(routing)
    steps = common_order([orders.get(name, ()) for name in names])
    return [
        _gather(routing, [deltas[kind][name] if place in turn else None for place, name in enumerate(names)])
        for kind, turn in steps
    ]


def distinct(routing: Routing) -> tuple[str, ...]:
    """The A names of a routing, each once, in order of appearance."""
    return tuple(dict.fromkeys(routing.names))


def by_record(
    routing: Routing, values: Sequence[Float[Tensor, "..."] | None], fill: float
) -> Float[Tensor, "R ..."]:
    """A tensor of each distinct adapter, as one of each record.

    Args:
        routing: the adapter of each record.
        values: one per distinct adapter, of shapes that may differ in size; None where it has none.
        fill: stands for what is missing.
    """
    given = [value for value in values if value is not None]
    shape = [max(sizes) for sizes in zip(*(value.shape for value in given), strict=True)]
    empty = given[0].new_full(shape, fill) if len(given) < len(values) else given[0]
    stacked = torch.stack([empty if value is None else _padded(value, shape, fill) for value in values])
    return stacked.index_select(0, record_to_distinct(routing, stacked.device))


def record_to_distinct(routing: Routing, device: torch.device) -> Tensor:
    """For each record the place of its adapter among the distinct ones, (R,)."""
    places = {name: place for place, name in enumerate(distinct(routing))}

    def make() -> Tensor:
        return torch.tensor([places[name] for name in routing.names], device=device)

    return routing.keep(("record_to_distinct", device), make)


def _gather(routing: Routing, deltas: Sequence[nn.Module | None]) -> RowDelta:
    """One delta per distinct adapter, or None -> one of every record."""
    one = cast("Delta", next(delta for delta in deltas if delta is not None))
    if one.neutral is None:
        raise UserError(
            f"A {type(one).__name__} delta cannot differ from row to row of a batch. Use adapters that have "
            f"it one batch at a time."
        )
    values = {}
    for name, fill in one.neutral.items():
        value = by_record(routing, [None if d is None else getattr(d, name) for d in deltas], fill)
        values[name] = value.unsqueeze(1) if value.dim() == 2 else value
    return RowDelta(one, values)


def _padded(value: Tensor, shape: Sequence[int], fill: float) -> Tensor:
    """``value`` with each dimension filled up to a size."""
    missing = [wanted - size for wanted, size in zip(shape, value.shape, strict=True)]
    if not any(missing):
        return value
    return nn.functional.pad(value, [n for size in reversed(missing) for n in (0, size)], value=fill)
