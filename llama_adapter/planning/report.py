"""A plan as tables for people, and as JSON for programs."""

import json
from dataclasses import asdict

from rich.table import Table

from llama_adapter.planning.estimate import Plan

_PREFIXES = ("", "K", "M", "G", "T", "P", "E")


def as_json(plan: Plan) -> str:
    """All figures, the sums included."""
    sums = {name: getattr(plan, name) for name in ("trainable", "frozen", "weight_bytes", "total_bytes")}
    return json.dumps(asdict(plan) | sums, indent=1)


def as_tables(plan: Plan) -> dict[str, Table]:
    """Heading -> table: parameters by part; memory; FLOPs."""
    tokens = plan.rows * plan.length * plan.passes_per_step
    return {
        f"Parameters of {plan.base} ({plan.dtype}) with its adapter": _parameters(plan),
        f"Memory of one device with {plan.rows} rows of {plan.length} tokens": _memory(plan),
        f"One optimizer step, {tokens:,} tokens per device": _flops(plan, tokens),
    }


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


def _parameters(plan: Plan) -> Table:
    """Frozen and trainable parameters by part."""
    table = Table("Part")
    for name in ("frozen", "trainable", "memory"):
        table.add_column(name, justify="right")
    for part in plan.parts:
        table.add_row(part.part, f"{part.frozen:,}", f"{part.trainable:,}", _size(part.num_bytes))
    table.add_section()
    table.add_row("all", f"{plan.frozen:,}", f"{plan.trainable:,}", _size(plan.weight_bytes))
    return table


def _memory(plan: Plan) -> Table:
    """What must fit on one device."""
    table = Table("Memory")
    table.add_column("size", justify="right")
    table.add_row("weights", _size(plan.weight_bytes))
    table.add_row("gradients", _size(plan.gradient_bytes))
    table.add_row("optimizer", _size(plan.optimizer_bytes))
    table.add_row("kept for the backward pass", _size(plan.saved_bytes))
    table.add_section()
    table.add_row("together", _size(plan.total_bytes))
    return table


def _flops(plan: Plan, tokens: int) -> Table:
    """What one optimizer step computes."""
    table = Table("FLOPs")
    table.add_column("per step", justify="right")
    table.add_column("per token", justify="right")
    both = None
    if plan.forward_flops is not None and plan.backward_flops is not None:
        both = plan.forward_flops + plan.backward_flops
    named = {"forward": plan.forward_flops, "backward": plan.backward_flops, "together": both}
    for name, flops in named.items():
        table.add_row(name, readable(flops, unit="FLOP"), readable(flops and flops / tokens, unit="FLOP"))
    return table


def _size(num_bytes: int | None) -> str:
    """Bytes, readable."""
    return readable(num_bytes, base=1024, unit="B")
