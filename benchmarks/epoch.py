"""One epoch of instruction data: token-budget batches, rows padded to 512, and PEFT in transformers' Trainer.

All see the same records and take about the same number of optimiser steps, so about the same number of
labelled tokens each; the loss on held-out records stands beside the time. The products advance in turn, a
share of their epoch at a time, so whatever else the machine does meets all of them.
"""

import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.progress import Progress

from benchmarks.products import Rows, optimizer_steps, our_trainer, their_trainer
from benchmarks.ratios import bootstrap_totals
from benchmarks.results import Row
from benchmarks.subjects import ADAPTION_PROMPT, DEFAULT_ZERO_INIT, load_adapted
from llama_adapter.data import DataConfig, build_datasets
from llama_adapter.data.config import SourceConfig
from llama_adapter.demo.base_model import DEFAULT_FOLDER, ensure_base
from llama_adapter.errors import UserError
from llama_adapter.models import BaseModelConfig, load_tokenizer

OURS = "token-budget batches"
PADDED = "rows padded to 512, as the published recipe"
PEFT = f"{ADAPTION_PROMPT} in transformers' Trainer"
TARGETS = {PADDED: 2.2, PEFT: 1.6}

MAX_LENGTH = 512
HELD_OUT = 100
"""Records at the end of the file that are not trained on."""
ROWS_PER_STEP = 8
"""The default of transformers; ours has as many tokens as so many rows have on average."""
LEARNING_RATE = 5e-3
"""For all: what suits a base of this size (docs/guidance.md)."""

DATA = Path(os.environ.get("LLAMA_ADAPTER_SHARED", "../shared")) / "data" / "instruct" / "alpaca_en_demo.json"
"""999 records in Alpaca's format, which are not part of this repository."""


@dataclass
class _Racer:
    """A product on its way through the epoch."""

    trainer: transformers.Trainer
    steps: Iterator[int] = field(init=False)
    total: int = field(init=False)
    taken: int = 0
    labelled: int = 0
    seconds: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.steps = optimizer_steps(self.trainer)
        batches = len(self.trainer.get_train_dataloader())
        self.total = -(-batches // self.trainer.args.gradient_accumulation_steps)

    def advance(self, share: float) -> None:
        """Take the steps up to a share of the epoch; their time is noted as one item."""
        start = time.perf_counter()
        while self.taken < round(share * self.total):
            self.labelled += next(self.steps)
            self.taken += 1
        self.seconds.append(time.perf_counter() - start)


def run(
    minimum: int = 14,
    maximum: int = 14,
    folder: Path = DEFAULT_FOLDER,
    data: Path = DATA,
    pad_to: int = MAX_LENGTH,
    held_out: int = HELD_OUT,
    dtype: torch.dtype = torch.bfloat16,
) -> list[Row]:
    """Race the products through one epoch.

    Args:
        minimum: pieces that the epoch is cut into.
        maximum: the same; only there because every benchmark takes it.
        folder: the base model.
        data: file with records.
        pad_to: what the published recipe pads to.
        held_out: records at the end that are evaluated.
        dtype: of the base's weights; the adapters' stay in float32.
    """
    train, evaluation = records(data, folder, held_out)
    with tempfile.TemporaryDirectory() as place:
        racers = {
            name: _Racer(trainer)
            for name, trainer in _trainers(train, folder, Path(place), pad_to, dtype).items()
        }
        _race(racers, minimum)
        losses = {
            name: _held_out_loss(racer.trainer.model, evaluation, Path(place))
            for name, racer in racers.items()
        }
    ours = racers[OURS]
    return [
        Row(
            measure="one epoch of alpaca_en_demo: times faster",
            against=name,
            **bootstrap_totals(ours.seconds, racers[name].seconds).figures(),
            target=target,
            facts=_facts(ours, losses[OURS], "")
            | _facts(racers[name], losses[name], " of the other")
            | {"base": str(dtype).removeprefix("torch."), "pieces": minimum},
        )
        for name, target in TARGETS.items()
    ]


def records(data: Path, folder: Path, held_out: int) -> tuple[Rows, Rows]:
    """Training and held-out rows.

    Raises:
        UserError: the file is not there.
    """
    if not data.is_file():
        raise UserError(
            f"{str(data)!r} is not there. Set LLAMA_ADAPTER_SHARED to the folder that holds data/instruct."
        )
    if folder == DEFAULT_FOLDER:
        ensure_base(folder)
    tokenizer = load_tokenizer(BaseModelConfig(name_or_path=str(folder)))
    config = DataConfig(train=[SourceConfig(path=str(data))], template="chat", max_length=MAX_LENGTH)
    rows: list[dict[str, Any]] = list(build_datasets(config, tokenizer).train)
    return rows[:-held_out], rows[-held_out:]


def _trainers(
    rows: Rows, folder: Path, place: Path, pad_to: int, dtype: torch.dtype
) -> dict[str, transformers.Trainer]:
    """The three products."""
    common: dict[str, Any] = {
        "output_dir": place,
        "learning_rate": LEARNING_RATE,
    }

    def adapted(name: str) -> Any:
        return load_adapted(name, folder, dtype)

    return {
        OURS: our_trainer(
            adapted(DEFAULT_ZERO_INIT),
            rows,
            batching="tokens",
            per_device_train_batch_size=ROWS_PER_STEP,
            **common,
        ),
        PADDED: their_trainer(
            adapted(DEFAULT_ZERO_INIT),
            rows,
            pad_to=pad_to,
            per_device_train_batch_size=ROWS_PER_STEP // 2,
            gradient_accumulation_steps=2,
            **common,
        ),
        PEFT: their_trainer(
            adapted(ADAPTION_PROMPT), rows, per_device_train_batch_size=ROWS_PER_STEP, **common
        ),
    }


def _race(racers: dict[str, _Racer], pieces: int) -> None:
    """Let every racer take its share of each piece, in rotating order."""
    order = list(racers.values())
    with Progress() as progress:
        for piece in progress.track(range(pieces), description="pieces of the epoch"):
            for place in range(len(order)):
                order[(piece + place) % len(order)].advance((piece + 1) / pieces)


def _held_out_loss(model: Any, rows: Rows, place: Path) -> float:
    """Nats per labelled token, computed the same way for all."""
    trainer = our_trainer(model, rows, place, per_device_eval_batch_size=4)
    return float(trainer.evaluate(list(rows))["eval_loss"])  # type: ignore[arg-type]


def _facts(racer: _Racer, loss: float, suffix: str) -> dict[str, Any]:
    """What stands behind a ratio."""
    return {
        f"seconds{suffix}": sum(racer.seconds),
        f"optimiser steps{suffix}": racer.taken,
        f"labelled tokens per step{suffix}": racer.labelled / max(racer.taken, 1),
        f"held-out loss{suffix}": loss,
    }
