"""The batches of an epoch where rows are of kinds that must not meet, or an epoch is a part of the data.

Rows of two kinds, such as those with an image and those without, never share an optimiser step: so each step
can train what belongs to its kind. Each kind is planned for itself, its batches are cut into steps, and the
steps of all kinds are shuffled. What is unusual: a *part* of an epoch counts as an epoch, as LLaMA-Adapter
V2's stage on image-text pairs has it (docs/sources/llama-adapter.md#optimisation): schedules, evaluation and
checkpoints then count parts. With sizes, steps are those of LLaMA2-Accessory's sampler
(docs/sources/llama2-accessory.md#sampler). What the kinds mean is not known here.

Dimension letters: N rows.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Int

from llama_adapter.data.batching import BatchRules, Plan, batches_per_epoch, plan_epoch
from llama_adapter.data.lengths import Lengths
from llama_adapter.errors import UserError


@dataclass(frozen=True, kw_only=True)
class EpochLayout:
    """How an epoch is laid out in optimiser steps.

    Raises:
        UserError: a number is below 1.
    """

    kinds: Int[np.ndarray, " N"] | None = None
    """Kind of each row; None where all rows may meet."""
    accumulation: int = 1
    """Batches that each rank has in a step."""
    parts: int = 1
    """Into how many epochs one pass over the data is divided."""
    sizes: Int[np.ndarray, " N"] | None = None
    """Size of each row. A step is then a run of rows of one kind sorted by size, whatever the epoch, and the
    largest of a kind that fill no step are never used: the published order. None for the order of here."""

    @property
    def is_plain(self) -> bool:
        """Whether steps do not matter."""
        return self.kinds is None and self.sizes is None and self.parts == 1

    def __post_init__(self) -> None:
        """Refuse numbers without meaning."""
        if self.accumulation < 1 or self.parts < 1:
            raise UserError(
                f"An epoch has accumulation={self.accumulation}, parts={self.parts}. Set both to at least 1."
            )


@dataclass(frozen=True)
class EpochPlan:
    """The batches of every epoch, a pure function of these three and the epoch."""

    lengths: Lengths
    """Tokens of each row."""
    rules: BatchRules
    """What a batch may hold, and for how many ranks."""
    layout: EpochLayout
    """Kinds of rows and parts of an epoch."""

    @cached_property
    def count(self) -> int:
        """Batches of an epoch over all ranks; the same in every epoch.

        Raises:
            UserError: an epoch is so small a part that it has no step, or no kind has the rows of one.
        """
        if self.layout.is_plain:
            return batches_per_epoch(self.lengths, self.rules)
        steps = sum(self._counts) // self._step
        if not steps:
            raise UserError(
                f"{len(self.lengths)} rows fill no optimiser step of {self._step_rows} rows of one type. "
                "Use smaller batches, less accumulation, or types=apart, which drops nothing."
            )
        if steps < self.layout.parts:
            raise UserError(
                f"{len(self.lengths)} rows make {steps} optimiser steps, too few for {self.layout.parts} "
                "parts of an epoch. Use fewer parts."
            )
        return steps // self.layout.parts * self._step

    def batches(self, epoch: int) -> Plan:
        """The batches of all ranks; rank ``r`` takes every ``ranks``-th, from the ``r``-th on.

        Steps that are left over when a pass is divided into parts are not used in that pass.

        Args:
            epoch: counted from 0, in parts where there are parts.
        """
        if self.layout.is_plain:
            return plan_epoch(self.lengths, self.rules, epoch, self.count)
        whole, part = divmod(epoch, self.layout.parts)
        steps = list[Plan]()
        for rows, count in zip(self._rows, self._counts, strict=True):
            named = self._named(rows, whole, count)
            steps += [named[at : at + self._step] for at in range(0, count, self._step)]
        seed = self.rules.seed or 0
        state = [seed, whole, 2] if self.layout.sizes is None else seed + whole
        order = np.random.default_rng(state).permutation(len(steps))
        chosen = order[part :: self.layout.parts][: self.count // self._step]
        return [batch for at in chosen for batch in steps[at]]

    def _named(self, rows: Int[np.ndarray, " _"], whole: int, count: int) -> Plan:
        """The batches of one kind in a pass."""
        if self.layout.sizes is not None:
            size = self._step_rows // self._step
            return [rows[at : at + size].tolist() for at in range(0, count * size, size)]
        plan = plan_epoch(self.lengths[rows], self._step_rules, whole, count)
        return [rows[batch].tolist() if batch else [] for batch in plan]

    @property
    def _step_rows(self) -> int:
        """Rows of a step, where that is a fixed number."""
        return self.rules.rows_of(1) * self._step

    @property
    def _step(self) -> int:
        """Batches of an optimiser step over all ranks."""
        return self.rules.ranks * self.layout.accumulation

    @property
    def _step_rules(self) -> BatchRules:
        """Rules under which each kind has whole steps."""
        return replace(self.rules, ranks=self._step)

    @cached_property
    def _rows(self) -> list[Int[np.ndarray, " _"]]:
        """Row numbers of each kind; with sizes, sorted by them."""
        kinds, sizes = self.layout.kinds, self.layout.sizes
        if kinds is None:
            rows = [np.arange(len(self.lengths))]
        else:
            rows = [np.flatnonzero(kinds == kind) for kind in np.unique(kinds)]
        return rows if sizes is None else [one[np.argsort(sizes[one], kind="stable")] for one in rows]

    @cached_property
    def _counts(self) -> list[int]:
        """Batches of each kind in a whole pass."""
        if self.layout.sizes is not None:
            return [len(rows) // self._step_rows * self._step for rows in self._rows]
        return [batches_per_epoch(self.lengths[rows], self._step_rules) for rows in self._rows]
