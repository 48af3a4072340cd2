"""The non-finite guard: a loss or gradient that is nan or inf stops the run and names its records.

What is unusual: losses are known per token, so only the records that went wrong are named; if all did, the
weights are at fault. It knows record ids as the collator gives them (``file:line``), nothing of the model.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from llama_adapter.errors import UserError

_SHOWN = 8


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
