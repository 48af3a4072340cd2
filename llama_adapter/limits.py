"""Which values a setting takes beyond its type: ranges and names, said where the setting is declared.

A field says its range in its annotation, ``batch_size: Count = 8``. For fields that a dataclass inherits from
a library, its class variable ``LIMITS`` says it, by name; dotted names reach into settings of libraries.
What is unusual: numbers that are not finite are refused everywhere, without being asked. Nothing is read or
converted here.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

_LARGEST = 2**63
"""Whole numbers beyond it fit into no tensor."""


@dataclass(frozen=True)
class Limit:
    """What a value must hold to, and how that is said."""

    holds: Callable[[Any], bool]
    """Whether a value of the right type is accepted."""
    words: str
    """What is accepted, as it ends the sentence 'Use ...'."""

    def __repr__(self) -> str:
        return self.words  # stands in help pages, beside the type


def at_least(low: int) -> Limit:
    """Numbers from `low` on."""
    return Limit(lambda value: value >= low, f"{low} or more")


def above(low: float) -> Limit:
    """Numbers larger than `low`."""
    return Limit(lambda value: value > low, f"a number above {low:g}")


def between(low: float, high: float) -> Limit:
    """Numbers from `low` to `high`, both included."""
    return Limit(lambda value: low <= value <= high, f"a number from {low:g} to {high:g}")


def below(low: float, high: float) -> Limit:
    """Numbers from `low` on and below `high`."""
    return Limit(lambda value: low <= value < high, f"a number from {low:g} to below {high:g}")


def share(value: float) -> bool:
    """Whether a number is above 0 and up to 1."""
    return 0 < value <= 1


def one_of(names: Iterable[str]) -> Limit:
    """Names out of a list; members of an enumeration count by their value."""
    known = tuple(names)
    return Limit(lambda value: getattr(value, "value", value) in known, f"one of {', '.join(known)}")


def _is_interval(value: float) -> bool:
    return 0 < value < 1 or (1 <= value < 2**53 and float(value).is_integer())


INTERVAL = Limit(_is_interval, "a whole number of steps, or a share of all steps between 0 and 1")
"""Every so many steps, as transformers counts them."""

INTERVAL_OR_ZERO = Limit(lambda value: value == 0 or _is_interval(value), f"0, {INTERVAL.words}")
"""Likewise; 0 is none."""

Count: TypeAlias = Annotated[int, at_least(1)]
"""A number of things of which there must be one."""

Natural: TypeAlias = Annotated[int, at_least(0)]
"""A number of things that may be none."""

Rate: TypeAlias = Annotated[float, Limit(lambda value: value >= 0, "a number from 0 on")]
"""A number that is not negative."""

Positive: TypeAlias = Annotated[float, above(0)]
"""A number above 0."""

Share: TypeAlias = Annotated[float, between(0, 1)]
"""A part of a whole, which may be none or all of it."""

PartOf: TypeAlias = Annotated[float, Limit(share, "a share above 0 and up to 1")]
"""A part of a whole that is not nothing."""

SEED = Limit(lambda value: 0 <= value < 2**32, "a whole number from 0 to 4294967295")
"""What numpy's, torch's and Python's generators all take."""

Seed: TypeAlias = Annotated[int, SEED]
"""Start of a random generator."""


def is_finite(value: float) -> bool:
    """Whether a number is one that can be computed with: neither nan, infinite nor beyond 64 bits."""
    return abs(value) < _LARGEST if isinstance(value, int) else math.isfinite(value)
