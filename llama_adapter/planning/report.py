"""A plan as tables for people, and as JSON for programs. Every line fits 100 columns."""

import json
from collections.abc import Iterator
from dataclasses import asdict

from rich.table import Table

from llama_adapter.hardware import CPU
from llama_adapter.planning.choices import Choice, advice
from llama_adapter.planning.device_memory import GATHERED, MARGINS
from llama_adapter.planning.estimate import DevicePlan, Plan
from llama_adapter.planning.timeline import ACTIVATIONS, CASTS, LOGITS, WORKING

SHOWN_CHOICES = 14
"""Lines of the comparison; JSON has all."""

_PREFIXES = ("", "K", "M", "G", "T", "P", "E")

_MEANINGS = {
    CASTS: "weight copies of autocast",
    ACTIVATIONS: "activations, kept for backward",
    LOGITS: "logits and their gradients",
    WORKING: "backward and recomputation",
    GATHERED: "gathered layers (unverified)",
    MARGINS: "CUDA context, fragmentation (unverified)",
}


def as_json(plan: Plan) -> str:
    """All figures."""
    sums = {"trainable": plan.trainable, "frozen": plan.frozen, "fits": plan.device.fits}
    return json.dumps(asdict(plan) | sums, indent=1)


def as_tables(plan: Plan) -> dict[str, Table]:
    """Heading -> table: parameters; data; memory; FLOPs; devices; choices."""
    tables = {
        f"Parameters of {plan.base} ({plan.precision})": _parameters(plan),
        "Data of an epoch": _data(plan),
        f"Memory of one {plan.device.device}, {plan.rows} x {plan.length} tokens, checkpointing: "
        f"{plan.checkpointing}": _memory(plan),
        f"One pass of {plan.rows} x {plan.length} tokens, {plan.accumulation} per optimizer step": _flops(
            plan
        ),
        f"Where it fits, and time at {plan.mfu:.0%} of the peak": _device_table(plan),
    }
    if plan.choices:
        heading = f"Choices on {_devices(plan.device)}, the fastest first (* as configured)"
        tables[heading] = _choice_table(plan)
    return tables


def closing(plan: Plan) -> Iterator[str]:
    """What follows from the plan: whether it fits and what to do, then the assumptions."""
    yield _verdict(plan)
    yield from plan.notes
    if (before := plan.features_before) is not None:
        yield (
            f"Features of {before.images:,.0f} images are computed once, before training: "
            f"{readable(before.flops, 1000, 'FLOP')}, {duration(before.seconds)} on one {plan.device.device}."
        )
    yield (
        "Counted: every tensor of a step, without a GPU. Not counted: what kernels allocate inside, data "
        "loading, evaluation, checkpoints."
    )
    if plan.device.device != CPU:
        yield (
            "Unverified, as no GPU was here: GPU kernels may keep other tensors than a CPU's; CUDA context, "
            "fragmentation, DDP and FSDP2 are arithmetic (docs/planning.md). `make gpu-check` compares them."
        )


def _verdict(plan: Plan) -> str:
    here = plan.device
    size = f"{readable(here.memory_bytes, 1024, 'B')} of {readable(here.usable_bytes, 1024, 'B')}"
    change = advice(plan.choices, plan.size)
    if here.fits:
        line = f"Fits: {size} on each {here.device}."
        faster = plan.choices[0] if plan.choices else None
        if faster and faster.options and faster.seconds_per_epoch < 0.97 * here.seconds_per_epoch:
            gain = here.seconds_per_epoch / faster.seconds_per_epoch
            line += f" {gain:.1f} times faster: {' '.join(faster.options)}."
        return line
    if not plan.choices:
        return f"Does not fit: {size}. Use `--compare true` for the cheapest change that fits."
    if change is None:
        return f"Does not fit: {size}, and no choice above does. Use a larger --gpu or more --num-gpus."
    return f"Does not fit: {size}. The cheapest change that fits is {' '.join(change.options)}."


def readable(value: float | None, base: int = 1000, unit: str = "") -> str:
    """Three digits and a prefix: `1.23 M`, with `base` 1024 `1.23 MiB`."""
    if value is None:
        return "not estimated"
    step = 0
    while value >= base and step < len(_PREFIXES) - 1:
        value, step = value / base, step + 1
    prefix = _PREFIXES[step] + ("i" if base == 1024 and step else "")
    digits = 0 if step == 0 else max(0, 2 - len(str(int(value))) + 1)
    return f"{value:.{digits}f} {prefix}{unit}".rstrip()


def duration(seconds: float) -> str:
    """Seconds as people say them: `8 s`, `7 min 46 s`, `3 h 12 min`, `3.4 days`."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 72 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{seconds / 86400:.1f} days"


def _parameters(plan: Plan) -> Table:
    """Frozen and trainable parameters by part."""
    table = _table("Part", "frozen", "trainable", "memory")
    for part in plan.parts:
        table.add_row(part.part, f"{part.frozen:,}", f"{part.trainable:,}", _size(part.num_bytes))
    table.add_section()
    table.add_row(
        "all", f"{plan.frozen:,}", f"{plan.trainable:,}", _size(sum(part.num_bytes for part in plan.parts))
    )
    return table


def _data(plan: Plan) -> Table:
    """Token statistics and the batches made of them."""
    table = _table("Tokens of a record", "value")
    found, load = plan.statistics, plan.load
    if found is not None:
        table.add_row("records", f"{found.records:,}")
        table.add_row("mean / median", f"{found.mean:.0f} / {found.median:.0f}")
        table.add_row("90 % / 99 % / longest", f"{found.p90:.0f} / {found.p99:.0f} / {found.longest}")
        table.add_row("share with loss", f"{found.labelled_share:.0%}")
    table.add_section()
    table.add_row("tokens of an epoch", f"{load.tokens:,}")
    table.add_row("padding in the batches", f"{load.padding_share:.1%}")
    table.add_row("optimizer steps of an epoch", f"{load.optimizer_steps:,}")
    return table


def _memory(plan: Plan) -> Table:
    """What is in use at the moment of the peak."""
    table = _table(f"At the peak ({plan.peak_phase}, {plan.peak_operator.removesuffix('.default')})", "size")
    for part, size in plan.memory.items():
        table.add_row(_MEANINGS.get(part, part), _size(size))
    table.add_section()
    table.add_row("together", _size(sum(plan.memory.values())))
    return table


def _flops(plan: Plan) -> Table:
    """What one pass over the heaviest batch computes."""
    table = _table("FLOPs", "per pass", "per token")
    tokens = plan.rows * plan.length
    both = plan.forward_flops + plan.backward_flops
    named = {"forward": plan.forward_flops, "backward": plan.backward_flops, "together": both}
    for name, flops in named.items():
        table.add_row(name, readable(flops, unit="FLOP"), readable(flops / tokens, unit="FLOP"))
    return table


def _device_table(plan: Plan) -> Table:
    """The run on every device."""
    table = _table("Device", "memory", "of", "fits", "epoch", f"{plan.epochs:g} epochs")
    for one in plan.devices:
        table.add_row(
            _devices(one),
            _size(one.memory_bytes),
            _size(one.usable_bytes),
            "yes" if one.fits else "no",
            duration(one.seconds_per_epoch),
            duration(one.seconds_per_epoch * plan.epochs),
        )
    return table


def _choice_table(plan: Plan) -> Table:
    """Other ways."""
    table = _table("Precision", "checkpointing", "sharing", plan.unit, "memory", f"most {plan.unit}", "epoch")
    for choice in plan.choices[:SHOWN_CHOICES]:
        table.add_row(
            choice.precision + ("" if choice.options else " *"),
            choice.checkpointing,
            choice.sharing,
            f"{choice.size:,}",
            _size(choice.memory_bytes),
            _largest(choice),
            duration(choice.seconds_per_epoch),
        )
    return table


def _largest(choice: Choice) -> str:
    return f"{choice.largest:,}" if choice.fits else "none"


def _table(first: str, *others: str) -> Table:
    table = Table(first)
    for name in others:
        table.add_column(name, justify="right")
    return table


def _devices(plan: DevicePlan) -> str:
    return plan.device if plan.devices == 1 else f"{plan.devices} x {plan.device}"


def _size(num_bytes: int | None) -> str:
    """Bytes, readable."""
    return readable(num_bytes, base=1024, unit="B")
