"""A training step as each product takes it by default: ours, and PEFT's methods in transformers' Trainer.

Speed is timed; memory is what the step holds at its peak beyond what it found. The operations of both sides
stand beside their times: in float32 both spend most of a step in matrix products that run near the machine's
rate, so the ratio of operations is about what can be reached, whatever the target says. In bfloat16, in which
the base is published and which both products then keep, products are cheaper and all the rest weighs more.
"""

import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.products import Rows, our_trainer, repeated_step, their_trainer
from benchmarks.results import Row
from benchmarks.steps import Step, memory_rows, speed_row
from benchmarks.subjects import ADAPTION_PROMPT, DEFAULT_ZERO_INIT, LORA, load_adapted
from benchmarks.training_step import ROWS, TOKENS
from llama_adapter.data.encoding import IGNORE
from llama_adapter.demo.base_model import DEFAULT_FOLDER

Shape = tuple[int, int]

CASES: tuple[tuple[Shape, torch.dtype], ...] = (
    ((ROWS, TOKENS), torch.float32),
    ((8, 256), torch.float32),
    ((ROWS, TOKENS), torch.bfloat16),
)
"""The batch of the other benchmarks; the host's default rows at about the length of instruction data; and the
precision of the base's weights."""
_PEFT = f"{ADAPTION_PROMPT} in transformers' Trainer"
_LORA = f"{LORA} in transformers' Trainer"
SPEED = {_PEFT: 1.4, _LORA: 1.2}
MEMORY = {_PEFT: 0.6, _LORA: None}


def run(
    minimum: int = 7,
    maximum: int = 25,
    folder: Path = DEFAULT_FOLDER,
    cases: tuple[tuple[Shape, torch.dtype], ...] = CASES,
) -> list[Row]:
    """Time the products' steps and count their memory.

    Args:
        minimum: pairs of steps at least.
        maximum: pairs at most.
        folder: the base model.
        cases: rows of the batch and tokens of each row, and the base's precision; memory is counted with the
            first.
    """
    table = []
    for shape, dtype in cases:
        with tempfile.TemporaryDirectory() as place:
            ours, others = _steps(shape, dtype, folder, Path(place))
            table += [
                speed_row(
                    (ours, other),
                    ("training step, product with its defaults", name),
                    "{} x {}, {}".format(*shape, str(dtype).removeprefix("torch.")),
                    SPEED[name],
                    (minimum, maximum),
                )
                for name, other in others.items()
            ]
            if (shape, dtype) == cases[0]:
                table += memory_rows(ours, others, "peak memory of that step beyond the weights", MEMORY)
    return table


def _steps(shape: Shape, dtype: torch.dtype, folder: Path, place: Path) -> tuple[Step, dict[str, Step]]:
    """Our step, and those of the other products over the same batch."""
    data = half_labelled(*shape)
    settings: dict[str, Any] = {"output_dir": place, "per_device_train_batch_size": shape[0]}
    ours = our_trainer(load_adapted(DEFAULT_ZERO_INIT, folder, dtype), data, **settings)
    others = {
        name: their_trainer(load_adapted(adapter, folder, dtype), data, **settings)
        for name, adapter in ((_PEFT, ADAPTION_PROMPT), (_LORA, LORA))
    }
    return repeated_step(ours), {name: repeated_step(trainer) for name, trainer in others.items()}


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
