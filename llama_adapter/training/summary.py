"""The two tables of a run: what is about to be trained, and what came out.

It reads the trainer and its log; it computes nothing.
"""

import math
from pathlib import Path
from typing import Any

from rich.table import Table
from transformers import SchedulerType

from llama_adapter.conditioning.files import CONDITIONER_FILE
from llama_adapter.models import parameter_counts
from llama_adapter.training.decay import decay_summary
from llama_adapter.training.trainer import Trainer


def start_table(trainer: Trainer) -> Table:
    """What is about to be trained: sizes, rows per step, the learning rate used."""
    args = trainer.args
    trainable, total = parameter_counts(trainer.unwrapped)
    devices = f"{args.world_size} x {args.device.type}"
    table = _table("Training")
    table.add_row("device", f"{devices}, mixed precision {args.mixed_precision}")
    adapter = trainer.parts.adapter
    base = trainer.unwrapped if adapter is None else adapter.get_base_model()
    if quantised := getattr(base, "quantization_report", None):
        table.add_row("base", str(quantised))
    table.add_row(
        "parameters", f"{trainable:,} trainable of {total:,} ({100 * trainable / max(total, 1):.3f} %)"
    )
    if len(parts := trainer.parts.trainable()) > 1:
        table.add_row("trainable parts", ", ".join(f"{name} {count:,}" for name, count in parts.items()))
    _add_batches(table, trainer)
    table.add_row("learning rate", _learning_rate(trainer))
    decayed = trainer.get_decay_parameter_names(trainer.unwrapped)
    groups = decay_summary(trainer.unwrapped.named_parameters(), decayed)
    table.add_row("weight decay", f"{args.weight_decay:g} on {groups}")
    table.add_row(
        "loss", f"mean per {'token of the step' if args.loss_reduction == 'token' else 'batch (published)'}"
    )
    table.add_row("length", _length(trainer))
    for number, change in enumerate(trainer.changes):
        table.add_row("" if number else "changed since the checkpoint", change)
    table.add_row("output", str(args.output_dir))
    return table


def _length(trainer: Trainer) -> str:
    """How long the run is, by the setting that decides it."""
    args = trainer.args
    if args.max_steps > 0:
        return f"{args.max_steps:,} steps (max_steps, whatever num_train_epochs says)"
    return f"{args.num_train_epochs:g} epochs"


_EPOCHS_SHOWN = 5
"""Epochs whose padding share is listed; further ones differ as little."""


def _add_batches(table: Table, trainer: Trainer) -> None:
    """How large a step is, and how much of it is padding where that is planned."""
    args, batches = trainer.args, trainer.train_batches
    parts = f"x {args.world_size} devices x {args.gradient_accumulation_steps} accumulated"
    if trainer.groups.joint:
        table.add_row("steps", "each with records of one kind: with an image, or without")
    if args.epoch_parts > 1:
        table.add_row("epoch", f"a {args.epoch_parts}th of the data")
    if batches is None or batches.rules.tokens is None:
        table.add_row(
            "rows per step", f"{args.rows_per_step} = {args.per_device_train_batch_size} per device {parts}"
        )
        return
    rows = trainer.get_total_train_batch_size(args)
    kind = "packed without padding" if batches.rules.packed else "rows of like length"
    table.add_row("tokens per step", f"at most {batches.rules.tokens:,} {parts}; {kind}, about {rows} rows")
    plans = [batches.statistics(epoch) for epoch in range(_epochs(trainer, len(batches)))]
    shares = ", ".join(f"{plan.padding_share:.1%}" for plan in plans)
    table.add_row("padding", f"{shares} of all tokens in epoch 1 to {len(plans)}")
    first = plans[0]
    table.add_row(
        "row lengths",
        f"mean {first.mean_length:.0f}, median {first.median_length}, p90 {first.p90_length}, "
        f"p99 {first.p99_length}, longest {first.longest}",
    )


def _epochs(trainer: Trainer, batches: int) -> int:
    """Epochs that the run takes up, as far as they are listed."""
    args = trainer.args
    epochs = args.num_train_epochs
    if args.max_steps > 0:
        epochs = args.max_steps * args.gradient_accumulation_steps / batches
    return max(min(math.ceil(epochs), _EPOCHS_SHOWN), 1)


def end_table(trainer: Trainer, result: Path) -> Table:
    """What came out: losses, speed, memory and where it lies."""
    history = trainer.state.log_history
    table = _table("Done")
    table.add_row("steps", f"{trainer.state.global_step:,} ({trainer.state.epoch or 0:.2f} epochs)")
    _add_change(table, "training loss", _values(history, "loss") or _values(history, "train_loss"))
    _add_evaluations(table, trainer, "answer NLL", "eval_loss")
    _add_evaluations(table, trainer, "answer perplexity", "eval_perplexity")
    if trainer.state.best_model_checkpoint:
        best = Path(trainer.state.best_model_checkpoint).name
        table.add_row("best", f"{best}, {trainer.args.metric_for_best_model} {trainer.state.best_metric:.4f}")
    last = next((record for record in reversed(history) if "train_loss" in record), {})
    if "tokens_per_second" in last:
        speed = (
            f"{last['tokens_per_second']:,.0f} tokens/s, {last['labelled_tokens_per_second']:,.0f} labelled"
        )
        table.add_row("speed", speed + (f", MFU {100 * last['mfu']:.1f} %" if "mfu" in last else ""))
    if "peak_memory_gib" in last:
        kind = "allocated on the GPU" if trainer.args.device.type == "cuda" else "resident, weights included"
        table.add_row("peak memory", f"{last['peak_memory_gib']:.2f} GiB {kind}")
    kinds = {"adapter": "adapter_model.*", "conditioner": CONDITIONER_FILE, "model": "model*.safetensors"}
    for name, pattern in kinds.items():
        if sizes := [file.stat().st_size for file in result.glob(pattern)]:
            table.add_row(name, f"{result} ({sum(sizes) / 2**20:.2f} MiB)")
    return table


def _learning_rate(trainer: Trainer) -> str:
    args = trainer.args
    text = f"{args.learning_rate:.4g}"
    if args.base_learning_rate is not None:
        text += f" = {args.base_learning_rate:g} x {args.rows_per_step} rows / 256"
    if args.schedule == "published":
        return f"{text}, warm-up {args.warmup_epochs:g} epochs, cosine to {args.min_learning_rate:g}"
    return f"{text}, {SchedulerType(args.lr_scheduler_type).value}, warm-up {args.warmup_steps:g}"


def _values(history: list[dict[str, Any]], name: str) -> list[float]:
    return [record[name] for record in history if name in record]


def _add_evaluations(table: Table, trainer: Trainer, label: str, name: str) -> None:
    """The first evaluation and that of the weights which were saved, each with its step."""
    state = trainer.state
    values = {record["step"]: record[name] for record in state.log_history if name in record}
    chosen = state.best_global_step if trainer.args.load_best_model_at_end else state.global_step
    last = chosen if chosen in values else max(values, default=None)
    if last is None:
        return
    first = min(values)
    start = f"{values[first]:.4f} (step {first}) -> " if first != last else ""
    table.add_row(label, f"{start}{values[last]:.4f} (step {last})")


def _add_change(table: Table, label: str, values: list[float]) -> None:
    """First and last of a series; nothing when there is none."""
    if values:
        table.add_row(
            label, f"{values[0]:.4f} -> {values[-1]:.4f}" if len(values) > 1 else f"{values[0]:.4f}"
        )


def _table(title: str) -> Table:
    table = Table(title=title, show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column()
    return table
