"""A training step as each product takes it by default: ours, and PEFT's methods in transformers' Trainer.

Speed is timed; memory is what the step holds at its peak beyond what it found.
"""

import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.products import Rows, our_trainer, repeated_step, their_trainer
from benchmarks.ratios import compare
from benchmarks.results import Row
from benchmarks.subjects import ADAPTION_PROMPT, DEFAULT_ZERO_INIT, LORA, load_adapted
from benchmarks.training_step import ROWS, TOKENS, peak_bytes
from llama_adapter.data.encoding import IGNORE
from llama_adapter.demo.base_model import DEFAULT_FOLDER

SPEED = {ADAPTION_PROMPT: 1.4, LORA: 1.2}
MEMORY = {ADAPTION_PROMPT: 0.6, LORA: None}


def run(
    minimum: int = 7, maximum: int = 25, folder: Path = DEFAULT_FOLDER, rows: int = ROWS, tokens: int = TOKENS
) -> list[Row]:
    """Time the products' steps and count their memory.

    Args:
        minimum: pairs of steps at least.
        maximum: pairs at most.
        folder: the base model.
        rows: of the batch.
        tokens: of each row.
    """
    data = half_labelled(rows, tokens)
    with tempfile.TemporaryDirectory() as place:
        settings: dict[str, Any] = {"output_dir": Path(place), "per_device_train_batch_size": rows}
        ours = repeated_step(our_trainer(load_adapted(DEFAULT_ZERO_INIT, folder), data, **settings))
        others = {
            name: repeated_step(their_trainer(load_adapted(name, folder), data, **settings)) for name in SPEED
        }
        table = []
        for name, target in SPEED.items():
            ratio, mine, other = compare(ours, others[name], target, minimum, maximum)
            table.append(
                Row(
                    measure="training step, product with its defaults: times faster",
                    against=f"{name} in transformers' Trainer",
                    **ratio.figures(),
                    target=target,
                    facts={"seconds": mine, "seconds of the other": other, "batch": f"{rows} x {tokens}"},
                )
            )
        peak = peak_bytes(ours)
        for name, limit in MEMORY.items():
            other_peak = peak_bytes(others[name])
            table.append(
                Row(
                    measure="peak memory of that step beyond the weights: share",
                    against=f"{name} in transformers' Trainer",
                    value=peak / other_peak,
                    low=peak / other_peak,
                    high=peak / other_peak,
                    pairs=1,
                    target=limit,
                    at_most=True,
                    facts={"bytes": peak, "bytes of the other": other_peak},
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
