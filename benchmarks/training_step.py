"""A training step of the method alone: same batch, same loss code, half of the tokens labelled.

Speed is timed; memory is what a step allocates at its peak beyond what it found, counted by torch's profiler.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.ratios import compare
from benchmarks.results import Row
from benchmarks.subjects import ADAPTION_PROMPT, LORA, ZERO_INIT, load_adapted
from llama_adapter.demo.base_model import DEFAULT_FOLDER
from llama_adapter.training.labelled_loss import LabelledLoss
from llama_adapter.training.loss import IGNORED, LabelledPositions

ROWS, TOKENS = 4, 128
SPEED = {ADAPTION_PROMPT: 1.15, LORA: None}
MEMORY = {ADAPTION_PROMPT: None, LORA: None}


def run(
    minimum: int = 7, maximum: int = 25, folder: Path = DEFAULT_FOLDER, rows: int = ROWS, tokens: int = TOKENS
) -> list[Row]:
    """Time the step against the other methods and count its memory.

    Args:
        minimum: pairs of steps at least.
        maximum: pairs at most.
        folder: the base model.
        rows: of the batch.
        tokens: of each row.
    """
    steps = {
        name: training_step(load_adapted(name, folder).train(), rows, tokens)
        for name in (ZERO_INIT, ADAPTION_PROMPT, LORA)
    }
    table = []
    for name, target in SPEED.items():
        ratio, mine, other = compare(steps[ZERO_INIT], steps[name], target, minimum, maximum)
        table.append(
            Row(
                measure="training step, method alone: times faster",
                against=name,
                **ratio.figures(),
                target=target,
                facts={
                    "batch": f"{rows} x {tokens}",
                    "seconds": mine,
                    "of the other": other,
                    "GFLOP": gflop(steps[ZERO_INIT]),
                    "GFLOP of the other": gflop(steps[name]),
                },
            )
        )
    peaks = {name: peak_bytes(step) for name, step in steps.items()}
    for name, target in MEMORY.items():
        share = peaks[ZERO_INIT] / peaks[name]
        table.append(
            Row(
                measure="peak memory of the step beyond the weights: share",
                against=name,
                value=share,
                low=share,
                high=share,
                pairs=1,
                target=target,
                at_most=True,
                facts={"bytes": peaks[ZERO_INIT], "bytes of the other": peaks[name]},
            )
        )
    return table


def training_step(model: nn.Module, rows: int, tokens: int) -> Callable[[], None]:
    """A whole step: forward, loss over labelled positions, backward, AdamW."""
    generator = torch.Generator().manual_seed(0)
    config: Any = model.config
    ids = torch.randint(0, config.vocab_size, (rows, tokens), generator=generator)
    labels = ids.clone()
    labels[:, : tokens // 2] = IGNORED
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=1e-4)
    loss, causal = LabelledLoss(), cast("Any", model)

    def step() -> None:
        optimizer.zero_grad()
        positions = LabelledPositions(labels)
        _, losses = loss(model, {"input_ids": ids, "use_cache": False}, positions, causal.get_base_model())
        losses.mean().backward()
        optimizer.step()

    return step


def gflop(step: Callable[[], None]) -> float:
    """Floating-point operations of a step, in billions."""
    with FlopCounterMode(display=False) as counter:
        step()
    return float(counter.get_total_flops() / 1e9)


def peak_bytes(step: Callable[[], object]) -> int:
    """Most bytes that a step held at once beyond those before it, after one step to warm up."""
    step()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    # events() of the profiler leaves out what an operator allocates itself; its raw records have everything
    raw: Any = profiler.profiler
    records = [record for record in raw.kineto_results.events() if record.name() == "[memory]"]
    held = peak = 0
    for record in sorted(records, key=lambda record: record.start_ns()):
        held += record.nbytes()
        peak = max(peak, held)
    return peak
