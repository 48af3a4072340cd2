"""Linear deltas and norm weights that differ from row to row: those of several adapters, gathered.

Adapters may have different kinds of deltas on a map, in different orders. One sequence of steps serves them
all: it contains each adapter's order, and in a step of a kind that is not an adapter's turn, that adapter's
rows get the values under which the kind does nothing. So every step is one operation on all rows, whatever
the number of adapters.

Dimensions: A distinct adapters, R records.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from llama_adapter.adapters.deltas import Delta
from llama_adapter.errors import UserError
from llama_adapter.forward_context import Routing


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
) -> list[Delta]:
    """What each record's rows go through, as deltas with a leading dimension R.

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
    empty = given[0].new_full(shape, fill) if len(given) < len(values) else None
    stacked = torch.stack([empty if value is None else _padded(value, shape, fill) for value in values])
    return stacked.index_select(0, record_to_distinct(routing, stacked.device))


def record_to_distinct(routing: Routing, device: torch.device) -> Tensor:
    """For each record the place of its adapter among the distinct ones, (R,)."""
    places = {name: place for place, name in enumerate(distinct(routing))}

    def make() -> Tensor:
        return torch.tensor([places[name] for name in routing.names], device=device)

    return routing.keep(("record_to_distinct", device), make)


def _gather(routing: Routing, deltas: Sequence[nn.Module | None]) -> Delta:
    """One delta per distinct adapter, or None -> one with a leading dimension R."""
    kind = next(type(delta) for delta in deltas if delta is not None)
    if not issubclass(kind, Delta) or kind.neutral is None:
        raise UserError(
            f"A {kind.__name__} delta cannot differ from row to row of a batch. Use adapters that have it "
            f"one batch at a time."
        )
    values = {}
    for name, fill in kind.neutral.items():
        value = by_record(routing, [None if d is None else getattr(d, name) for d in deltas], fill)
        values[name] = value.unsqueeze(1) if value.dim() == 2 else value
    return kind.of_rows(values)


def _padded(value: Tensor, shape: Sequence[int], fill: float) -> Tensor:
    """``value`` with each dimension filled up to a size."""
    missing = [wanted - size for wanted, size in zip(shape, value.shape, strict=True)]
    if not any(missing):
        return value
    return nn.functional.pad(value, [n for size in reversed(missing) for n in (0, size)], value=fill)
