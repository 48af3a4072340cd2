"""A training step as each product takes it by default: ours, and PEFT's methods in transformers' Trainer.

Speed is timed; memory is what the step holds at its peak beyond what it found. The operations of both sides
stand beside their times: both spend most of a step in matrix products that run near the machine's rate, so
the ratio of operations is about what can be reached in one precision, whatever the target says.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.products import Rows, our_trainer, repeated_step, their_trainer
from benchmarks.ratios import compare
from benchmarks.results import Row
from benchmarks.subjects import ADAPTION_PROMPT, DEFAULT_ZERO_INIT, LORA, load_adapted
from benchmarks.training_step import ROWS, TOKENS, gflop, peak_bytes
from llama_adapter.data.encoding import IGNORE
from llama_adapter.demo.base_model import DEFAULT_FOLDER

Shape = tuple[int, int]
Step = Callable[[], None]

SHAPES: tuple[Shape, ...] = ((ROWS, TOKENS), (8, 256))
"""The batch of the other benchmarks; the host's default rows at about the length of instruction data."""
SPEED = {ADAPTION_PROMPT: 1.4, LORA: 1.2}
MEMORY = {ADAPTION_PROMPT: 0.6, LORA: None}


def run(
    minimum: int = 7, maximum: int = 25, folder: Path = DEFAULT_FOLDER, shapes: tuple[Shape, ...] = SHAPES
) -> list[Row]:
    """Time the products' steps and count their memory.

    Args:
        minimum: pairs of steps at least.
        maximum: pairs at most.
        folder: the base model.
        shapes: rows of the batch and tokens of each row; memory is counted with the first.
    """
    table = []
    for shape in shapes:
        with tempfile.TemporaryDirectory() as place:
            steps = _steps(shape, folder, Path(place))
            table += [_speed(steps, name, shape, minimum, maximum) for name in SPEED]
            if shape == shapes[0]:
                table += _memory(steps)
    return table


def _steps(shape: Shape, folder: Path, place: Path) -> dict[str, Step]:
    """The step of each product over the same batch."""
    data = half_labelled(*shape)
    settings: dict[str, Any] = {"output_dir": place, "per_device_train_batch_size": shape[0]}
    ours = our_trainer(load_adapted(DEFAULT_ZERO_INIT, folder), data, **settings)
    others = {name: their_trainer(load_adapted(name, folder), data, **settings) for name in SPEED}
    return {DEFAULT_ZERO_INIT: repeated_step(ours)} | {
        name: repeated_step(trainer) for name, trainer in others.items()
    }


def _speed(steps: dict[str, Step], name: str, shape: Shape, minimum: int, maximum: int) -> Row:
    """How much faster ours is than one of the others."""
    ours, other = steps[DEFAULT_ZERO_INIT], steps[name]
    ratio, mine, seconds = compare(ours, other, SPEED[name], minimum, maximum)
    return Row(
        measure="training step, product with its defaults: times faster",
        against=f"{name} in transformers' Trainer",
        **ratio.figures(),
        target=SPEED[name],
        facts={
            "batch": "{} x {}".format(*shape),
            "seconds": mine,
            "of the other": seconds,
            "GFLOP": gflop(ours),
            "GFLOP of the other": gflop(other),
        },
    )


def _memory(steps: dict[str, Step]) -> list[Row]:
    """What a step holds at its peak, beside the others."""
    peaks = {name: peak_bytes(step) for name, step in steps.items()}
    table = []
    for name, limit in MEMORY.items():
        share = peaks[DEFAULT_ZERO_INIT] / peaks[name]
        table.append(
            Row(
                measure="peak memory of that step beyond the weights: share",
                against=f"{name} in transformers' Trainer",
                value=share,
                low=share,
                high=share,
                pairs=1,
                target=limit,
                at_most=True,
                facts={"bytes": peaks[DEFAULT_ZERO_INIT], "bytes of the other": peaks[name]},
            )
        )
    return table


def half_labelled(rows: int, tokens: int) -> Rows:
    """Random rows of which the second half carries loss."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 256, (rows, tokens), generator=generator).tolist()
    return [
        {
            "input_ids": row,
            "labels": [IGNORE] * (tokens // 2) + row[tokens // 2 :],
            "record_id": str(number),
        }
        for number, row in enumerate(ids)
    ]
