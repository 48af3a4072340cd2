"""The non-finite guard: a loss or gradient that is nan or inf stops the run and names its records.

What is unusual: losses are known per token, so only the records that went wrong are named; if all did, the
weights are at fault. With fp16 a gradient that overflows is no error: its scaler skips the step and scales
less. Only when that does not help is it one. It knows record ids as the collator gives them (``file:line``),
nothing of the model.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from llama_adapter.errors import UserError

_SHOWN = 8

SKIPPED_STEPS = 20
"""Steps in a row that fp16's scaler may skip. It starts at 2^16 and halves with each, so that 16 take it to
1, where gradients are not scaled at all; a run that needs more has no finite gradient."""

SMALLEST_SCALE = 2.0**-10
"""The scale below which a run is over although single steps succeed: its gradients are larger than fp16's
largest number a thousand times over."""


@dataclass(frozen=True)
class Moment:
    """Where a run stands, for the message."""

    step: int
    """The optimiser step in progress, counted from 1."""

    learning_rate: float
    """Its learning rate."""

    precision: str
    """``no``, ``bf16`` or ``fp16``."""


def check_losses(
    losses: Float[Tensor, " N"], records: Int[Tensor, " N"], record_ids: list[str], moment: Moment
) -> None:
    """Stop when a token's loss is not finite.

    Args:
        losses: One loss per labelled token.
        records: The record of the batch that each belongs to: its row, or its place in a pack.
        record_ids: The records' names; empty when the collator gives none.
        moment: Where the run stands.

    Raises:
        UserError: Names the records, and what to try.
    """
    values = losses.detach()
    finite = torch.isfinite(values)
    if bool(finite.all()):
        return
    bad = sorted(set(records[~finite].tolist()))
    count = len(set(records.tolist()))
    named = [record_ids[at] if record_ids else f"record {at} of the batch" for at in bad]
    where = f"{len(bad)} of {count} records"
    if len(bad) == count > 1:
        where = f"all {count} records, so rather the weights than the records are at fault"
    raise UserError(
        f"The loss became {float(values[~finite][0])} in step {moment.step} on {where}: {_list(named)}. "
        f"Try to {_advice(moment)}"
    )


def check_gradient(norm: float, record_ids: list[str], moment: Moment) -> None:
    """Stop when the gradient is not finite although every loss was.

    Args:
        norm: Norm of the gradient of one optimiser step.
        record_ids: Records of the step on this rank.
        moment: Where the run stands.

    Raises:
        UserError: Names the records, and what to try.
    """
    if norm - norm == 0.0:  # false for nan and for both infinities
        return
    named = _list(record_ids) if record_ids else "(the collator gives no record_id)"
    raise UserError(
        f"The gradient norm became {norm} in step {moment.step}, whose records are {named}. "
        f"Try to {_advice(moment)}"
    )


class ScalerWatch:
    """Follows the gradient scaler of a run in fp16.

    A step that was skipped shows in a smaller scale; accelerate does not notice it with fused optimizers.
    """

    def __init__(self, scale: float) -> None:
        """Begin a run.

        Args:
            scale: What losses are multiplied by.
        """
        self._scale = scale
        self._in_a_row = 0

    def check(self, scale: float, record_ids: list[str], moment: Moment) -> None:
        """Stop when scaling less does not lead to finite gradients.

        Args:
            scale: The scale after the optimiser step just done.
            record_ids: Records of the step on this rank.
            moment: Where the run stands.

        Raises:
            UserError: Names the records, and what to try.
        """
        self._in_a_row = self._in_a_row + 1 if scale < self._scale else 0
        self._scale = scale
        if self._in_a_row < SKIPPED_STEPS and scale >= SMALLEST_SCALE:
            return
        named = _list(record_ids) if record_ids else "(the collator gives no record_id)"
        raise UserError(
            f"The gradients overflow in fp16: {self._in_a_row} steps in a row were skipped, up to step "
            f"{moment.step}, whose records are {named}; the loss scale is down to {scale:.3g}. "
            f"Try to {_advice(moment)}"
        )


def _advice(moment: Moment) -> str:
    tries = [
        f"lower training.learning_rate (now {moment.learning_rate:.3g})",
        "set training.max_grad_norm=1.0",
    ]
    if moment.precision == "fp16":
        tries.append("use bf16 instead of fp16")
    tries.append("look at these records with `llama-adapter validate-data`")
    return f"{', or '.join(tries)}; training.resume=true continues from the last checkpoint."


def _list(names: list[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
