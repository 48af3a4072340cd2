"""A training step of the method alone: same batch, same loss code, half of the tokens labelled.

Speed is timed; memory is what a step allocates at its peak beyond what it found, counted by torch's profiler.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from benchmarks.results import Row
from benchmarks.steps import memory_rows, speed_row
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
    ours, others = steps[ZERO_INIT], {name: steps[name] for name in SPEED}
    table = [
        speed_row(
            (ours, other),
            ("training step, method alone", name),
            f"{rows} x {tokens}",
            SPEED[name],
            (minimum, maximum),
        )
        for name, other in others.items()
    ]
    return table + memory_rows(ours, others, "peak memory of the step beyond the weights", MEMORY)


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
