"""Linear deltas and norm weights that differ from row to row: those of several adapters, gathered.

Adapters may have different kinds of deltas on a map, in different orders. One sequence of steps serves them
all: it contains each adapter's order, and in a step of a kind that is not an adapter's turn, that adapter's
rows get the values under which the kind does nothing. So every step is one operation on all rows, whatever
the number of adapters.

That holds for deltas which differ in their parameters alone. Where they differ in anything else, in a buffer
or a setting that the module keeps, or where a kind has no values under which it does nothing, each adapter's
delta computes its own rows.

Dimensions: A distinct adapters, R records, T tokens of all of a record's rows, N input width, M output width.
"""

import inspect
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from llama_adapter.adapters.deltas import Delta
from llama_adapter.forward_context import Routing

_OF_EVERY_MODULE = frozenset(vars(nn.Module())) - {"_modules"}
"""Attributes of a module that are none of its own."""


class WithValues:
    """A module as its own code sees it, but with other parameters: it may itself run in another thread."""

    def __init__(self, module: nn.Module, values: dict[str, Tensor]) -> None:
        self.module = module
        self.__dict__.update(values)

    def __getattr__(self, name: str) -> Any:
        """What is no parameter is the module's; its methods and properties see these parameters too."""
        of_class = inspect.getattr_static(type(self.module), name, None)
        if hasattr(of_class, "__get__"):
            return of_class.__get__(self, type(self.module))
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


class OwnRowsDelta:
    """A delta of every record, where each adapter's own module computes the rows of its records."""

    def __init__(self, routing: Routing, deltas: Sequence[Delta | None]) -> None:
        names = distinct(routing)
        self._records = [[r for r, name in enumerate(routing.names) if name == own] for own in names]
        self._deltas = deltas
        placed = [record for records in self._records for record in records]
        self._back = sorted(range(len(placed)), key=placed.__getitem__)
        self.applies_to_prompts = next(d for d in deltas if d is not None).applies_to_prompts

    def on_input(self, x: Float[Tensor, "R T N"]) -> Float[Tensor, "R T N"]:
        """As ``Delta.on_input``."""
        return self._join([x[own] if d is None else d.on_input(x[own]) for own, d in self._parts()])

    def on_output(self, y: Float[Tensor, "R T M"], x: Float[Tensor, "R T N"]) -> Float[Tensor, "R T M"]:
        """As ``Delta.on_output``."""
        return self._join([y[own] if d is None else d.on_output(y[own], x[own]) for own, d in self._parts()])

    def _parts(self) -> Iterator[tuple[list[int], Delta | None]]:
        """Each adapter's records and its delta."""
        return zip(self._records, self._deltas, strict=True)

    def _join(self, parts: list[Float[Tensor, "_ T _"]]) -> Float[Tensor, "R T _"]:
        """Rows of all adapters, in the order of the batch."""
        return torch.cat(parts)[self._back]


AnyRowDelta = RowDelta | OwnRowsDelta


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
) -> list[AnyRowDelta]:
    """What each record's rows go through.

    Args:
        routing: the adapter of each record.
        orders: kinds of each adapter's deltas on this map, in order.
        deltas: the deltas of a kind, by adapter.
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


def _gather(routing: Routing, deltas: Sequence[nn.Module | None]) -> AnyRowDelta:
    """One delta per distinct adapter, or None -> one of every record."""
    given = [cast("Delta", delta) for delta in deltas if delta is not None]
    neutral = given[0].neutral
    if neutral is None or not all(_differ_in(given[0], other, neutral.keys()) for other in given):
        return OwnRowsDelta(routing, cast("Sequence[Delta | None]", deltas))
    values = {}
    for name, fill in neutral.items():
        value = by_record(routing, [None if d is None else getattr(d, name) for d in deltas], fill)
        values[name] = value.unsqueeze(1) if value.dim() == 2 else value
    return RowDelta(given[0], values)


def _differ_in(one: Delta, other: Delta, parameters: Collection[str]) -> bool:
    """Whether two deltas of a kind differ in these parameters at most, so that one computes for both."""
    alike = all(
        own.keys() == theirs.keys() and all(_equal(value, theirs[name]) for name, value in own.items())
        for own, theirs in (
            (_state(one), _state(other)),
            (dict(one.named_buffers()), dict(other.named_buffers())),
        )
    )
    return alike and dict(one.named_parameters()).keys() == set(parameters)


def _state(delta: Delta) -> dict[str, Any]:
    """What a delta keeps besides parameters and buffers: settings."""
    return {name: value for name, value in vars(delta).items() if name not in _OF_EVERY_MODULE}


def _equal(one: Any, other: Any) -> bool:
    """Whether two values are surely the same; what cannot be compared is not."""
    if one is other:
        return True
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and one.device == other.device and torch.equal(one, other)
    same = type(one) is type(other) and one == other
    return same is True


def _padded(value: Tensor, shape: Sequence[int], fill: float) -> Tensor:
    """``value`` with each dimension filled up to a size."""
    missing = [wanted - size for wanted, size in zip(shape, value.shape, strict=True)]
    if not any(missing):
        return value
    return nn.functional.pad(value, [n for size in reversed(missing) for n in (0, size)], value=fill)
