"""How much faster one thing is than another, and how sure that is.

Both run in turn, in changing order, so that whatever else the machine does meets both. Each pair gives a
ratio; pairs are added until the interval of the median lies on one side of the target, or enough were run.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

RESAMPLES = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """A ratio with its bootstrap interval."""

    median: float
    """Middle of the pairs' ratios, or the ratio of the pieces' sums."""
    low: float
    """Lower end of its 95 % interval."""
    high: float
    """Upper end."""
    pairs: int
    """How many were run."""

    def decides(self, target: float | None) -> bool:
        """Whether the interval lies on one side of ``target``; never for a target of None."""
        return target is not None and not self.low <= target <= self.high

    def figures(self) -> dict[str, Any]:
        """What a :class:`benchmarks.results.Row` takes of it."""
        return {"value": self.median, "low": self.low, "high": self.high, "pairs": self.pairs}


def bootstrap(ratios: Sequence[float]) -> Ratio:
    """Median and percentile interval of some pairs' ratios."""
    values = np.asarray(ratios)
    drawn = np.random.default_rng(0).choice(values, (RESAMPLES, len(values)))
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(np.median(drawn, axis=1), [tail, 100 - tail])
    return Ratio(median=float(np.median(values)), low=float(low), high=float(high), pairs=len(values))


def bootstrap_totals(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """Ratio of two sums of times and its interval, from pieces that were run in turn."""
    mine, other = np.asarray(ours), np.asarray(theirs)
    drawn = np.random.default_rng(0).integers(0, len(mine), (RESAMPLES, len(mine)))
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(other[drawn].sum(axis=1) / mine[drawn].sum(axis=1), [tail, 100 - tail])
    return Ratio(median=float(other.sum() / mine.sum()), low=float(low), high=float(high), pairs=len(mine))


def compare(
    ours: Callable[[], object],
    theirs: Callable[[], object],
    target: float | None,
    minimum: int,
    maximum: int,
) -> tuple[Ratio, float, float]:
    """Time two things in turn.

    Args:
        ours: the one in the denominator: a ratio above 1 says that it is faster.
        theirs: the other.
        target: ratio that is to be decided; None runs the minimum.
        minimum: pairs in any case; one more before them is not counted.
        maximum: pairs at most.

    Returns:
        The ratio, and the median seconds of ours and theirs.
    """
    seconds_of(ours), seconds_of(theirs)
    mine: list[float] = []
    other: list[float] = []
    while True:
        both = ((ours, mine), (theirs, other))
        for run, times in both if len(mine) % 2 else both[::-1]:
            times.append(seconds_of(run))
        if len(mine) < minimum:
            continue
        ratio = bootstrap([b / a for a, b in zip(mine, other, strict=True)])
        if target is None or len(mine) >= maximum or ratio.decides(target):
            return ratio, float(np.median(mine)), float(np.median(other))


def seconds_of(run: Callable[[], object]) -> float:
    """Wall time of one run."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
