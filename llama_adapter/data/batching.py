"""Lengths of rows to batches of row numbers: by token budget, by number of rows, or packed.

A plan is a pure function of the lengths, the rules and the epoch, so every process computes the same one and
a resumed run finds its place again. Records are shuffled, sorted by length inside windows, cut into batches,
and the batches are shuffled: neighbours in length share a batch, and the company changes every epoch.

What is unusual: every epoch has the same number of batches, a multiple of the ranks, because a trainer counts
an epoch's steps once. Nothing is dropped or repeated for that: too few batches are made more by halving those
with most rows, too many are made fewer by sorting in wider windows. Only where each batch holds one row
already can a rank be left without a batch; its list is then empty. Nothing here knows tokens, devices or the
trainer.

Dimension letters: N rows, M of them in one window.
"""

import heapq
from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count as counter
from typing import TypeAlias

import numpy as np
from jaxtyping import Int

from llama_adapter.data.lengths import Lengths
from llama_adapter.errors import UserError

Plan: TypeAlias = list[list[int]]
"""Batches of row numbers."""

RowNumbers: TypeAlias = Int[np.ndarray, " M"]
"""Some of the rows."""

WINDOW_BATCHES = 64
"""Batches' worth of rows that are sorted together."""

FEWEST_WINDOWS, SMALLEST_WINDOW = 2, 8
"""Small data are split, too, if each half makes 8 batches: sorted as a whole they would give the same batches
in every epoch."""


@dataclass(frozen=True, kw_only=True)
class BatchRules:
    """What a batch may hold, and for whom the batches are.

    Raises:
        UserError: nothing bounds a batch, or a number is below 1.
    """

    tokens: int | None = None
    """Most tokens of one batch, padding included: rows times the longest. A longer row is a batch of its
    own."""
    rows: int | None = None
    """Most rows of one batch."""
    packed: bool = False
    """Whether the rows of a batch stand one after the other in one sequence, without padding."""
    ranks: int = 1
    """Processes that share the batches."""
    seed: int | None = 0
    """Seed of the order; None sorts everything by length, longest first, and shuffles nothing."""

    def __post_init__(self) -> None:
        """Refuse rules that bound nothing."""
        bounds = {"tokens": self.tokens, "rows": self.rows, "ranks": self.ranks}
        if self.tokens is None and (self.rows is None or self.packed):
            raise UserError(f"A batch has no limit ({bounds}). Set a number of tokens, or of rows.")
        for name, value in bounds.items():
            if value is not None and value < 1:
                raise UserError(f"A batch cannot be made with {name}={value}. Set it to at least 1.")

    def rows_of(self, longest: int) -> int:
        """How many rows a padded batch may have if its longest has ``longest`` tokens."""
        by_tokens = None if self.tokens is None else self.tokens // max(longest, 1)
        return max(min(limit for limit in (by_tokens, self.rows) if limit is not None), 1)


def token_budget(lengths: Lengths, rows: int, tokens: int | None) -> int:
    """Tokens of one device batch, padding included.

    Without a number the budget keeps the size of an optimiser step: as many tokens as that many rows of mean
    length have, but at least the longest row. So the learning rate keeps its meaning.

    Args:
        lengths: tokens of each training row.
        rows: how many rows a batch would hold.
        tokens: the budget, where it is given.
    """
    if tokens is not None:
        return tokens
    return max(round(rows * float(lengths.mean())), int(lengths.max()))


def batches_per_epoch(lengths: Lengths, rules: BatchRules) -> int:
    """Batches of every epoch over all ranks: a multiple of the ranks.

    It is the number that the first epoch's windows give, and never less than sorting all rows together
    needs, so that every epoch can be made to have it.
    """
    smallest = len(_batches(lengths, rules, epoch=0, windows=1))
    usual = len(_batches(lengths, rules, epoch=0, windows=_windows(lengths, rules)))
    return -(-max(smallest, usual) // rules.ranks) * rules.ranks


def plan_epoch(lengths: Lengths, rules: BatchRules, epoch: int, count: int) -> Plan:
    """The batches of one epoch.

    Args:
        lengths: tokens of each row.
        rules: what a batch may hold.
        epoch: counted from 0.
        count: what :func:`batches_per_epoch` gave for the same lengths and rules.

    Returns:
        ``count`` batches in which every row occurs exactly once; rank ``r`` takes every ``ranks``-th, from
        the ``r``-th on.
    """
    windows = _windows(lengths, rules)
    plan = _batches(lengths, rules, epoch, windows)
    while len(plan) > count and windows > 1:
        windows //= 2
        plan = _batches(lengths, rules, epoch, windows)
    plan = _halved(plan, count)
    if rules.seed is None:
        return plan
    order = np.random.default_rng([rules.seed, epoch, 1]).permutation(len(plan))
    return [plan[at] for at in order]


def _windows(lengths: Lengths, rules: BatchRules) -> int:
    """Into how many windows the rows are split before sorting."""
    if rules.seed is None or len(lengths) == 0:
        return 1
    batches = len(lengths) / rules.rows_of(round(float(lengths.mean())))
    return max(round(batches / WINDOW_BATCHES), min(FEWEST_WINDOWS, int(batches / SMALLEST_WINDOW)), 1)


def _batches(lengths: Lengths, rules: BatchRules, epoch: int, windows: int) -> Plan:
    """Shuffle, sort inside windows, cut."""
    order = np.arange(len(lengths))
    if rules.seed is not None:
        order = np.random.default_rng([rules.seed, epoch, 0]).permutation(len(lengths))
    plan: Plan = []
    for window in np.array_split(order, windows):
        longest_first = window[np.argsort(-lengths[window], kind="stable")]
        made = _packed(longest_first, lengths, rules) if rules.packed else _cut(longest_first, lengths, rules)
        plan.extend(made)
    return plan


def _cut(longest_first: RowNumbers, lengths: Lengths, rules: BatchRules) -> Iterator[list[int]]:
    """Padded batches: as many of the next rows as fit beside the first, which is the longest.

    Of rows sorted as a whole no other partition within the budget has fewer batches.
    """
    start = 0
    while start < len(longest_first):
        stop = start + rules.rows_of(int(lengths[longest_first[start]]))
        yield longest_first[start:stop].tolist()
        start = stop


def _packed(longest_first: RowNumbers, lengths: Lengths, rules: BatchRules) -> Plan:
    """Packs: best fit decreasing, each row into the fullest pack that still has room for it.

    How many packs come out depends on the lengths alone, not on the order of equal ones.
    """
    plan: Plan = []
    by_room: dict[int, list[list[int]]] = {}
    rooms: list[int] = []  # the keys of by_room in order
    for row in longest_first.tolist():
        length = int(lengths[row])
        at = bisect_left(rooms, length)
        if at == len(rooms):
            pack: list[int] = []
            plan.append(pack)
            room = rules.tokens or 0
        else:
            room = rooms[at]
            pack = by_room[room].pop()
            if not by_room[room]:
                del by_room[room], rooms[at]
        pack.append(row)
        left = room - length
        if left > 0 and (rules.rows is None or len(pack) < rules.rows):
            if left not in by_room:
                insort(rooms, left)
            by_room.setdefault(left, []).append(pack)
    return plan


def _halved(plan: Plan, count: int) -> Plan:
    """Make more batches by halving those with most rows; empty ones only where no batch has two rows."""
    queue = [(-len(batch), place, batch) for place, batch in enumerate(plan)]
    heapq.heapify(queue)
    new_place = counter(len(plan))
    while len(queue) < count and queue and -queue[0][0] > 1:
        _, place, batch = heapq.heappop(queue)
        middle = (len(batch) + 1) // 2
        heapq.heappush(queue, (-middle, place, batch[:middle]))
        heapq.heappush(queue, (middle - len(batch), next(new_place), batch[middle:]))
    batches = [batch for _, _, batch in sorted(queue, key=lambda entry: entry[1])]
    return batches + [[] for _ in range(count - len(batches))]
