"""The published learning-rate schedule: set in every optimiser step from the fractional epoch.

At epoch ``e`` of ``E`` with ``W`` warm-up epochs and peak ``p``: ``p * e / W`` below ``W``, afterwards ``m +
(p - m) * (1 + cos(pi * (e - W) / (E - W))) / 2``. What is unusual: the first step has a rate of exactly 0, so
it moves nothing; with gates at zero the prompts then get their first gradient in the third step. It does not
know the optimiser; parameter groups keep their own peak, which the factor multiplies.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from llama_adapter.errors import UserError


@dataclass(frozen=True, kw_only=True)
class EpochClock:
    """Turns optimiser steps into fractional epochs, the way the published loop counts them."""

    batches_per_epoch: int
    """Batches that one rank sees per epoch."""

    accumulation: int
    """Batches per optimiser step."""

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps per epoch; a short last step counts."""
        return max(math.ceil(self.batches_per_epoch / self.accumulation), 1)

    def epoch(self, step: int) -> float:
        """The epoch at the start of an optimiser step: whole epochs plus the share of batches already seen.

        Args:
            step: Optimiser steps done before this one.
        """
        whole, rest = divmod(step, self.steps_per_epoch)
        return whole + rest * self.accumulation / self.batches_per_epoch


@dataclass(frozen=True, kw_only=True)
class PublishedSchedule:
    """Linear warm-up from 0, then half a cosine to the minimum."""

    peak: float
    """Learning rate at the end of the warm-up."""

    minimum: float
    """Learning rate at the end of the run."""

    warmup_epochs: float
    """Length of the warm-up."""

    epochs: float
    """Length of the run."""

    def __post_init__(self) -> None:
        """Check that the warm-up leaves something to decay.

        Raises:
            UserError: When the warm-up is as long as the run, or the peak is not positive.
        """
        if self.warmup_epochs < 0 or self.warmup_epochs >= self.epochs:
            raise UserError(
                f"warmup_epochs={self.warmup_epochs:g} does not fit into a run of {self.epochs:g} epochs. "
                "Choose a shorter warm-up, or more epochs."
            )
        if self.peak <= 0:
            raise UserError(f"learning_rate={self.peak:g} trains nothing. Choose a rate above 0.")

    def rate(self, epoch: float) -> float:
        """The learning rate at a fractional epoch."""
        if epoch < self.warmup_epochs:
            return self.peak * epoch / self.warmup_epochs
        share = min((epoch - self.warmup_epochs) / (self.epochs - self.warmup_epochs), 1.0)
        return self.minimum + (self.peak - self.minimum) * 0.5 * (1.0 + math.cos(math.pi * share))


def step_factor(schedule: PublishedSchedule, clock: EpochClock) -> Callable[[int], float]:
    """What ``LambdaLR`` multiplies a group's peak rate with, per optimiser step.

    A plain function, so that a checkpoint stores the step count only and a resumed run keeps its own
    schedule.
    """

    def factor(step: int) -> float:
        return schedule.rate(clock.epoch(step)) / schedule.peak

    return factor
