"""Other ways to do the same run: precision, checkpointing, rows, sharing; which fit and which is fastest.

Every combination of base type and checkpointing policy is simulated at two batch sizes; memory in between is
interpolated, which never says too little, since each moment of a step grows linearly and the peak is the
largest of them. Quantised bases and sharing are arithmetic on top. Nothing is printed here.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import torch

from llama_adapter.hardware import CPU, Device
from llama_adapter.planning.device_memory import (
    ModelSizes,
    Quantisation,
    Sharing,
    device_memory,
    model_sizes,
    usable_bytes,
)
from llama_adapter.planning.simulation import POLICIES, Simulation, Variant
from llama_adapter.planning.workload import Workload

MANY_ROWS = 32
"""The larger of the two batches, or twice the run's own."""

SHORT = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One way to do the run."""

    precision: str
    """Of the base weights, and of mixed precision."""
    checkpointing: str
    """Policy."""
    sharing: Sharing
    """How devices share the work."""
    rows: int
    """Rows of a device's batch: the run's own, or as many as fit; 1 where none fits."""
    memory_bytes: int
    """On one device, with these rows."""
    fits: bool
    """Whether these rows fit."""
    most_rows: int
    """The largest batch that fits; 0 where none does."""
    seconds_per_epoch: float
    """At the stated MFU."""
    options: list[str] = field(default_factory=list)
    """What to add to the command; empty for the run as it is."""


@dataclass(frozen=True, kw_only=True)
class _Precision:
    """A precision to try."""

    variant: Variant
    quantisation: Quantisation = "none"
    options: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        if self.quantisation != "none":
            return f"{self.quantisation} base"
        mixed = self.variant.autocast
        return SHORT.get(self.variant.dtype, "other") + (f", autocast {SHORT[mixed]}" if mixed else "")


Timer = Callable[[Variant, int, Sharing, ModelSizes, Quantisation], float]
"""Seconds per epoch of a variant with so many rows."""


def compare(
    simulation: Simulation, workload: Workload, device: Device, devices: int, timer: Timer
) -> list[Choice]:
    """All choices, the fastest that fit first.

    Args:
        simulation: of the run.
        workload: its data.
        device: to fit on.
        devices: how many of them.
        timer: seconds per epoch of a choice.
    """
    found = list[Choice]()
    for precision in _precisions(simulation.configured, device):
        sizes = model_sizes(simulation.meta_model(precision.variant.dtype))
        for policy in POLICIES:
            variant = replace(precision.variant, checkpointing=policy)
            tried = replace(precision, variant=variant)
            memory = _Memory(simulation, workload, variant)
            for sharing in _sharings(devices, precision.quantisation):
                bytes_of = memory.on(device, devices, sizes, sharing, precision.quantisation)
                found.append(_choice(simulation, tried, sharing, bytes_of, device, sizes, timer))
    return sorted(found, key=lambda choice: (not choice.fits, choice.seconds_per_epoch, len(choice.options)))


def _choice(
    simulation: Simulation,
    precision: _Precision,
    sharing: Sharing,
    bytes_of: Callable[[int], int],
    device: Device,
    sizes: ModelSizes,
    timer: Timer,
) -> Choice:
    """One line of the comparison."""
    wanted = simulation.config.training.per_device_train_batch_size
    most = _most_rows(bytes_of, usable_bytes(device))
    rows = min(wanted, max(1, most))
    options = [*precision.options, *_policy_option(simulation, precision.variant.checkpointing)]
    if sharing == "fsdp2" and not simulation.config.training.fsdp:
        options.append('--training.fsdp "full_shard auto_wrap"')
    if rows != wanted:
        options.append(f"--training.per-device-train-batch-size {rows}")
    return Choice(
        precision=precision.label,
        checkpointing=precision.variant.checkpointing,
        sharing=sharing,
        rows=rows,
        memory_bytes=bytes_of(rows),
        fits=most >= 1,
        most_rows=most,
        seconds_per_epoch=timer(precision.variant, rows, sharing, sizes, precision.quantisation),
        options=options,
    )


def advice(choices: list[Choice], wanted_rows: int) -> Choice | None:
    """The cheapest change that fits: fewest options, then the fastest; None where nothing fits."""
    fitting = [choice for choice in choices if choice.fits and choice.options]
    return min(
        fitting,
        key=lambda choice: (choice.rows != wanted_rows, len(choice.options), choice.seconds_per_epoch),
        default=None,
    )


class _Memory:
    """Memory of a variant for any number of rows, from two."""

    def __init__(self, simulation: Simulation, workload: Workload, variant: Variant) -> None:
        self.few = 1
        self.many = max(MANY_ROWS, 2 * simulation.config.training.per_device_train_batch_size)
        self.costs = [simulation.cost(variant, workload.heaviest(rows)) for rows in (self.few, self.many)]

    def on(
        self,
        device: Device,
        devices: int,
        sizes: ModelSizes,
        sharing: Sharing,
        quantisation: Quantisation,
    ) -> Callable[[int], int]:
        """Rows -> bytes on one device."""
        few, many = (
            sum(device_memory(cost, sizes, device, sharing, devices, quantisation).values())
            for cost in self.costs
        )
        slope = (many - few) / (self.many - self.few)
        return lambda rows: int(few + slope * (rows - self.few))


def _most_rows(bytes_of: Callable[[int], int], limit: int) -> int:
    """The largest number of rows whose memory is within the limit."""
    one, two = bytes_of(1), bytes_of(2)
    if one > limit:
        return 0
    return 1 + int((limit - one) / max(two - one, 1))


def _precisions(configured: Variant, device: Device) -> Iterator[_Precision]:
    """The run's own precision, and what needs less."""
    yield _Precision(variant=configured)
    half = Variant(dtype=torch.bfloat16)
    if configured.dtype.itemsize != 2:
        yield _Precision(variant=half, options=("--base.dtype bf16",))
    if device.name != CPU:
        base = half if configured.dtype.itemsize != 2 else configured
        for kind in ("int8", "nf4"):
            yield _Precision(variant=base, quantisation=kind, options=(f"--base.quantization {kind}",))


def _sharings(devices: int, quantisation: Quantisation) -> tuple[Sharing, ...]:
    """Ways to share the work; a quantised base is not sharded here."""
    if devices == 1:
        return ("single",)
    return ("ddp",) if quantisation != "none" else ("ddp", "fsdp2")


def _policy_option(simulation: Simulation, policy: str) -> list[str]:
    """How a policy is asked for, unless it is the run's own."""
    if policy == simulation.configured.checkpointing:
        return []
    return [f"--training.activation-checkpointing {str(policy != 'none').lower()}"]
