"""A training step under every checkpointing policy: its time, and its peak of memory beyond the weights."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from torch import nn

from benchmarks.ratios import compare
from benchmarks.results import Row
from benchmarks.steps import peak_bytes
from benchmarks.subjects import ZERO_INIT, load_adapted
from benchmarks.training_step import ROWS, TOKENS, training_step
from llama_adapter.demo.base_model import DEFAULT_FOLDER
from llama_adapter.training.activation_memory import CheckpointingPolicy, apply_checkpointing


def run(
    minimum: int = 7, maximum: int = 7, folder: Path = DEFAULT_FOLDER, rows: int = ROWS, tokens: int = TOKENS
) -> list[Row]:
    """Compare every policy with none.

    Args:
        minimum: pairs of steps at least.
        maximum: pairs at most; nothing here has a target.
        folder: the base model.
        rows: of the batch.
        tokens: of each row.
    """
    model = load_adapted(ZERO_INIT, folder).train()
    step = training_step(model, rows, tokens)
    policies: tuple[CheckpointingPolicy, ...] = ("none", "selective", "mlp", "layer")
    steps = {policy: partial(_under, model, policy, step) for policy in policies}
    peaks = {policy: peak_bytes(steps[policy]) for policy in policies}
    table = []
    for policy in policies[1:]:
        ratio, mine, plain = compare(steps[policy], steps["none"], None, minimum, maximum)
        table.append(
            Row(
                measure=f"training step, checkpointing={policy}: times faster",
                against="checkpointing=none",
                **ratio.figures(),
                facts={
                    "seconds": mine,
                    "seconds of the other": plain,
                    "peak bytes": peaks[policy],
                    "peak bytes of the other": peaks["none"],
                    "batch": f"{rows} x {tokens}",
                },
            )
        )
    return table


def _under(model: nn.Module, policy: CheckpointingPolicy, step: Callable[[], None]) -> None:
    """A step under a policy."""
    undo = apply_checkpointing(model, policy)
    step()
    undo()
