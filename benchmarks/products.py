"""Whole products, each with its own trainer, taken optimiser step by optimiser step so that they interleave.

A product is a trainer with its model. Its steps are those of the trainer's own loop: its batches, its loss,
its clipping, its optimiser and its schedule; logging and checkpoints are left out.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from llama_adapter.data import PaddingCollator
from llama_adapter.data.encoding import IGNORE
from llama_adapter.training import Trainer, TrainingConfig

PAD = 0
"""Padding is masked and carries no loss: any token serves."""

Rows = Sequence[dict[str, Any]]
"""Training rows: ``input_ids``, ``labels``, ``record_id``."""

_QUIET: dict[str, Any] = {
    "report_to": [],
    "disable_tqdm": True,
    "use_cpu": True,
    "save_strategy": "no",
    "seed": 0,
}


def our_trainer(model: nn.Module, rows: Rows, output_dir: Path, **settings: Any) -> Trainer:
    """The trainer of this project with its defaults, but for ``settings``."""
    return Trainer(
        model=model,
        args=TrainingConfig(output_dir=str(output_dir), **(_QUIET | settings)),
        train_dataset=list(rows),
        data_collator=PaddingCollator(PAD),
    )


def their_trainer(
    model: nn.Module, rows: Rows, output_dir: Path, pad_to: int | None = None, **settings: Any
) -> transformers.Trainer:
    """Transformers' trainer with its defaults, but for ``settings``: the model's own loss, random batches.

    Args:
        model: an adapted model.
        rows: what it trains on.
        output_dir: where a run would write.
        pad_to: tokens that every row is padded to; None pads a batch to its longest row.
        **settings: of ``TrainingArguments``.
    """
    plain = [{name: row[name] for name in ("input_ids", "labels")} for row in rows]

    def collate(batch: list[dict[str, Any]]) -> dict[str, Any]:
        collated = PaddingCollator(PAD)([{**row, "record_id": ""} for row in batch])
        del collated["record_id"]
        missing = max((pad_to or 0) - collated["input_ids"].shape[1], 0)
        fill = {"input_ids": PAD, "attention_mask": 0, "labels": IGNORE}
        return {
            name: torch.nn.functional.pad(value, (0, missing), value=fill[name])
            for name, value in collated.items()
        }

    return transformers.Trainer(
        model=model,
        args=transformers.TrainingArguments(output_dir=str(output_dir), **(_QUIET | settings)),
        train_dataset=plain,
        data_collator=collate,
    )


def _begin(trainer: transformers.Trainer, steps: int) -> Any:
    """What a trainer does before its first step; its model."""
    model: Any = trainer.model
    model.train()
    trainer.create_optimizer_and_scheduler(steps)
    trainer.callback_handler.on_train_begin(trainer.args, trainer.state, trainer.control)
    return model


def optimizer_steps(trainer: transformers.Trainer) -> Iterator[int]:
    """One epoch; each item is a step that was taken, as its number of labelled tokens."""
    loader = trainer.get_train_dataloader()
    accumulation = trainer.args.gradient_accumulation_steps
    count = -(-len(loader) // accumulation)
    model = _begin(trainer, count)
    optimizer: Any = trainer.optimizer
    scheduler: Any = trainer.lr_scheduler
    batches = iter(loader)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for _ in range(count):
        step_batches, items = trainer.get_batch_samples(batches, accumulation, trainer.args.device)
        trainer.current_gradient_accumulation_steps = len(step_batches)
        for batch in step_batches:
            trainer.training_step(model, batch, items)
        torch.nn.utils.clip_grad_norm_(trainable, trainer.args.max_grad_norm)
        optimizer.step()
        scheduler.step()
        model.zero_grad()
        yield int(sum(int((batch["labels"][:, 1:] != IGNORE).sum()) for batch in step_batches))


def repeated_step(trainer: transformers.Trainer) -> Callable[[], None]:
    """The trainer's step over its first batch, again and again."""
    model = _begin(trainer, 1000)
    optimizer: Any = trainer.optimizer
    batch = next(iter(trainer.get_train_dataloader()))
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def step() -> None:
        batches, items = trainer.get_batch_samples(iter([dict(batch)]), 1, trainer.args.device)
        trainer.training_step(model, batches[0], items)
        torch.nn.utils.clip_grad_norm_(trainable, trainer.args.max_grad_norm)
        optimizer.step()
        model.zero_grad()

    return step
