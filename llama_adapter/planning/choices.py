"""Other ways to do the same run: precision, checkpointing, rows, sharing; which fit and which is fastest.

Every combination of base type and checkpointing policy is simulated with the run's own batch or, where that
does not fit, with the largest that does. How far a batch could grow is a straight line to one much larger.
Quantised bases and sharing are arithmetic on top. Nothing is printed here.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import torch

from llama_adapter.errors import UserError
from llama_adapter.hardware import CPU, Device
from llama_adapter.planning.device_memory import (
    ModelSizes,
    Sharing,
    device_memory,
    model_sizes,
    usable_bytes,
)
from llama_adapter.planning.simulation import POLICIES, Simulation, Variant
from llama_adapter.planning.step import StepCost
from llama_adapter.planning.workload import Workload
from llama_adapter.quantization import Quantization

_MANY = 32
"""The much larger batch is so many times the smallest, or twice the run's own."""

_QUANTISED: tuple[Quantization, ...] = ("int8", "nf4")

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
    size: int
    """Of a device's batch, in rows or tokens: the run's own, or the largest that fits, or the smallest."""
    memory_bytes: int
    """On one device, with such batches."""
    fits: bool
    """Whether they fit."""
    largest: int
    """The largest batch that fits; 0 where none does."""
    seconds_per_epoch: float
    """At the stated MFU."""
    options: list[str] = field(default_factory=list)
    """What to add to the command; empty for the run as it is."""


@dataclass(frozen=True, kw_only=True)
class _Precision:
    """A precision to try."""

    variant: Variant
    quantisation: Quantization = "none"
    options: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        if self.quantisation != "none":
            return f"{self.quantisation} base"
        mixed = self.variant.autocast
        return SHORT.get(self.variant.dtype, "other") + (f", autocast {SHORT[mixed]}" if mixed else "")


Timer = Callable[[Variant, int, Sharing, ModelSizes, Quantization], float]
"""Seconds per epoch of a variant with batches of such a size."""


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
    for precision in _precisions(simulation, device):
        sizes = model_sizes(simulation.meta_model(precision.variant.dtype), precision.variant.autocast)
        for policy in POLICIES:
            tried = replace(precision, variant=replace(precision.variant, checkpointing=policy))
            batches = _Batches(simulation, workload, tried.variant)
            for sharing in _sharings(devices, tried.quantisation):
                room = partial(
                    device_memory,
                    sizes=sizes,
                    device=device,
                    sharing=sharing,
                    devices=devices,
                    quantisation=tried.quantisation,
                )
                try:
                    size, memory, largest = batches.that_fit(room, usable_bytes(device))
                except UserError:
                    if policy == simulation.configured.checkpointing:
                        raise
                    continue  # not every model has what a policy recomputes
                seconds = timer(tried.variant, size, sharing, sizes, tried.quantisation)
                options = _options(simulation, tried, sharing, batches, size)
                found.append(_choice(tried, sharing, (size, memory, largest), seconds, options))
    return sorted(found, key=lambda choice: (not choice.fits, choice.seconds_per_epoch, len(choice.options)))


def _choice(
    precision: _Precision,
    sharing: Sharing,
    batch: tuple[int, int, int],
    seconds: float,
    options: list[str],
) -> Choice:
    """One line of the comparison; ``batch`` is what ``that_fit`` found."""
    size, memory, largest = batch
    return Choice(
        precision=precision.label,
        checkpointing=precision.variant.checkpointing,
        sharing=sharing,
        size=size,
        memory_bytes=memory,
        fits=largest > 0,
        largest=largest,
        seconds_per_epoch=seconds,
        options=options,
    )


def _options(
    simulation: Simulation, precision: _Precision, sharing: Sharing, batches: "_Batches", size: int
) -> list[str]:
    """What to add to the command for a choice."""
    options = [*precision.options, *_policy_option(simulation, precision.variant.checkpointing)]
    if sharing == "fsdp2" and not simulation.config.training.fsdp:
        options.append('--training.fsdp "full_shard auto_wrap"')
    if size != batches.wanted:
        unit = "per-device-train-batch-size" if batches.batching == "rows" else "tokens-per-batch"
        options.append(f"--training.{unit} {size}")
        options.extend(_same_step(simulation, batches.wanted, size))
    return options


def _same_step(simulation: Simulation, wanted: int, size: int) -> list[str]:
    """What keeps an optimizer step as large, where it can; a preset does that itself."""
    if wanted % size or simulation.config.training.preset is not None:
        return []
    return [f"--training.gradient-accumulation-steps {simulation.accumulation * wanted // size}"]


def advice(choices: list[Choice], wanted: int) -> Choice | None:
    """The cheapest change that fits; None where nothing fits.

    One that leaves the weights as they are, then one that leaves the batch, then the fewest options, then the
    fastest.
    """
    fitting = [choice for choice in choices if choice.fits and choice.options]
    return min(
        fitting,
        key=lambda choice: (
            any(option.startswith("--base.") for option in choice.options),
            choice.size != wanted,
            len(choice.options),
            choice.seconds_per_epoch,
        ),
        default=None,
    )


class _Batches:
    """Batches of any size, in one variant of the run."""

    def __init__(self, simulation: Simulation, workload: Workload, variant: Variant) -> None:
        self.batching = workload.batching
        self.wanted = workload.size(simulation.config.training)
        self.smallest = workload.smallest
        self._cost = lambda size: simulation.cost(variant, workload.heaviest(size))

    def that_fit(self, room: Callable[[StepCost], Mapping[str, int]], limit: int) -> tuple[int, int, int]:
        """The size to use, its bytes, and the largest size that fits, which is 0 if none does.

        Args:
            room: a step's cost -> bytes on a device, by part.
            limit: bytes that the device has.
        """

        def used(size: int) -> int:
            return sum(room(self._cost(size)).values())

        wanted = used(self.wanted)
        if wanted <= limit:
            many = max(_MANY * self.smallest, 2 * self.wanted)
            slope = (used(many) - wanted) / (many - self.wanted)
            return self.wanted, wanted, self.wanted + int((limit - wanted) / max(slope, 1e-9))
        least = used(self.smallest)
        if least > limit or self.wanted == self.smallest:
            return self.smallest, least, 0
        slope = (wanted - least) / (self.wanted - self.smallest)
        size = self.smallest + int((limit - least) / slope)
        while (memory := used(size)) > limit:  # the line is an estimate between its ends
            size = max(self.smallest, min(size - 1, size * 19 // 20))
        return size, memory, size


def _precisions(simulation: Simulation, device: Device) -> Iterator[_Precision]:
    """The run's own precision, and what needs less."""
    configured, own = simulation.configured, simulation.config.base.quantization
    yield _Precision(variant=configured, quantisation=own)
    half = configured
    unquantised = () if own == "none" else ("--base.quantization none",)
    if configured.dtype.itemsize != 2:
        half = Variant(dtype=torch.bfloat16)
        yield _Precision(variant=half, options=("--base.dtype bf16", *unquantised))
    elif unquantised:
        yield _Precision(variant=half, options=unquantised)
    if device.name != CPU and simulation.config.tuning is None:  # weights that train are not quantised
        for kind in _QUANTISED:
            if kind != own:
                yield _Precision(variant=half, quantisation=kind, options=(f"--base.quantization {kind}",))


def _sharings(devices: int, quantisation: Quantization) -> tuple[Sharing, ...]:
    """Ways to share the work; a quantised base is not sharded here."""
    if devices == 1:
        return ("single",)
    return ("ddp",) if quantisation != "none" else ("ddp", "fsdp2")


def _policy_option(simulation: Simulation, policy: str) -> list[str]:
    """How a policy is asked for, unless it is the run's own."""
    if policy == simulation.configured.checkpointing:
        return []
    options = [f"--training.checkpointing {policy}"]
    if simulation.config.training.activation_checkpointing:
        options.append("--training.activation-checkpointing false")
    return options
