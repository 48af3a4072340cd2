"""From a training config to its plan: one simulated step, the data, and arithmetic on both.

What cannot be known is None, with a note that says why and what to do. It does not know how figures are
printed.
"""

from dataclasses import dataclass, field

import torch

from llama_adapter.errors import UserError
from llama_adapter.hardware import CPU, GPUS, Device, find_device, known_gpu, measured_cpu
from llama_adapter.planning.choices import SHORT, Choice, compare
from llama_adapter.planning.config import PlanConfig
from llama_adapter.planning.device_memory import (
    ModelSizes,
    Sharing,
    device_memory,
    model_sizes,
    usable_bytes,
)
from llama_adapter.planning.fake_model import feature_shape
from llama_adapter.planning.flops import FlopModel, fit_flops
from llama_adapter.planning.parameters import PartCount, count_parts
from llama_adapter.planning.simulation import Simulation, Variant
from llama_adapter.planning.step import StepCost
from llama_adapter.planning.timing import EpochWork, epoch_seconds, peak_rate
from llama_adapter.planning.workload import (
    EpochLoad,
    TokenStatistics,
    Workload,
    measured_workload,
    stated_workload,
)
from llama_adapter.quantization import Quantization
from llama_adapter.training.tuning import PlannedImages

SHOWN_DEVICES = ("a100-40gb", "a100-80gb", "h100", "h200", "l4", "rtx4090", "rtx3090", CPU)
"""Devices that every plan lists."""


@dataclass(frozen=True, kw_only=True)
class DevicePlan:
    """The run as configured, on one kind of device."""

    device: str
    devices: int
    memory_bytes: int
    """On one device."""
    usable_bytes: int
    """What a device has."""
    seconds_per_epoch: float

    @property
    def fits(self) -> bool:
        """Whether it fits."""
        return self.memory_bytes <= self.usable_bytes


@dataclass(frozen=True, kw_only=True)
class FeaturesBefore:
    """Features that are computed once, before the first step."""

    images: float
    """Of all records."""
    flops: float
    """Of all encoders."""
    seconds: float
    """On one device."""


@dataclass(kw_only=True)
class Plan:
    """The figures of a run, in numbers, bytes, FLOPs and seconds."""

    base: str
    """The base model."""
    precision: str
    """Of its weights and of mixed precision."""
    checkpointing: str
    """Policy of activation checkpointing."""
    batching: str
    """Whether batches count rows or tokens, or are packed."""
    size: int
    """Size of a batch of a device, in rows or tokens."""
    rows: int
    """Rows of the heaviest batch of a device."""
    length: int
    """Its length in tokens."""
    accumulation: int
    """Micro-batches of an optimizer step."""
    epochs: float
    """Of the whole run."""
    mfu: float
    """Share of the peak that is assumed."""
    parts: list[PartCount]
    """Parameters by part."""
    device: DevicePlan
    """The device that was asked for."""
    memory: dict[str, int]
    """Bytes on that device when they are most, by part."""
    peak_phase: str
    """Where in the step that is."""
    peak_operator: str
    """After which operator."""
    tensor_bytes: int
    """All tensors at that moment, on a single device and without its extras."""
    forward_flops: int
    """Of the heaviest batch."""
    backward_flops: int
    """Of the heaviest batch, recomputation included."""
    flops: FlopModel
    """Of any batch."""
    statistics: TokenStatistics | None
    """Lengths of the records."""
    load: EpochLoad
    """Sums over an epoch's batches, on the devices asked for."""
    devices: list[DevicePlan] = field(default_factory=list)
    """The run on every device that is listed."""
    features_before: FeaturesBefore | None = None
    """What encoders compute before training, where features of a whole model's images are kept."""
    choices: list[Choice] = field(default_factory=list)
    """Other ways to do it on the device asked for, the fastest that fit first."""
    notes: list[str] = field(default_factory=list)
    """What is assumed or missing."""

    @property
    def unit(self) -> str:
        """What a batch's size counts."""
        return "rows" if self.batching == "rows" else "tokens"

    @property
    def trainable(self) -> int:
        """Number of trainable parameters."""
        return sum(part.trainable for part in self.parts)

    @property
    def frozen(self) -> int:
        """Number of frozen parameters."""
        return sum(part.frozen for part in self.parts)


def estimate(config: PlanConfig) -> Plan:
    """Plans a training run.

    Raises:
        UserError: the base has no readable configuration, the adapter does not fit it, the device is not
            known, or the model cannot run without content.
    """
    device = find_device(config.gpu) if config.gpu is not None else this_device()
    features = feature_shape(config, config.feature_tokens, config.feature_width)
    simulation = Simulation(config, config.num_gpus, on_gpu=device.name != CPU, features=features)
    notes = simulation.notes
    workload = find_workload(config, notes, simulation.images)
    variant, size = simulation.configured, workload.size(config.training)
    heaviest = workload.heaviest(size)
    cost = simulation.cost(variant, heaviest)
    clock = _Clock(config, simulation, workload)
    model = simulation.meta_model(variant.dtype)
    sizes = model_sizes(model, variant.autocast)
    sharing = configured_sharing(config)
    load = clock.load(size, config.num_gpus)
    return Plan(
        base=config.base.name_or_path,
        precision=_precision(variant),
        checkpointing=variant.checkpointing,
        batching=workload.batching,
        size=size,
        rows=len(heaviest),
        length=max(row.tokens for row in heaviest),
        accumulation=simulation.accumulation,
        epochs=_epochs(config, load),
        mfu=config.mfu,
        parts=count_parts(model),
        device=clock.on(device, cost, sizes, sharing),
        memory=device_memory(cost, sizes, device, sharing, config.num_gpus, config.base.quantization),
        peak_phase=cost.peak.phase,
        peak_operator=cost.peak.operator,
        tensor_bytes=cost.peak.total,
        forward_flops=cost.forward_flops,
        backward_flops=cost.backward_flops,
        flops=clock.flops,
        statistics=workload.statistics,
        load=load,
        devices=[clock.on(one, cost, sizes, sharing) for one in _shown(device)],
        features_before=_before(config, simulation, workload, device),
        choices=_choices(config, simulation, workload, device, clock) if config.compare else [],
        notes=notes,
    )


def this_device() -> Device:
    """The device of this machine that a run would use.

    Raises:
        UserError: it is a GPU whose rates are not known.
    """
    if not torch.cuda.is_available():
        return measured_cpu()
    name = torch.cuda.get_device_name()
    found = known_gpu(name)
    if found is None:
        names = ", ".join(gpu.name for gpu in GPUS)
        raise UserError(f"The rates of this machine's {name!r} are not known. Use --gpu with one of {names}.")
    return found


def find_workload(config: PlanConfig, notes: list[str], shown: PlannedImages | None = None) -> Workload:
    """The records of an epoch: as stated, else from the data, else one row of full length and a note.

    Args:
        config: of the plan.
        notes: gets what is assumed.
        shown: how the model sees images, if it does.
    """
    images = 0.0 if shown is None else config.image_share
    image_tokens = 0 if shown is None else shown.tokens
    longest, padding = config.data.max_length + (image_tokens if images else 0), config.padding_share
    apart = any(group.records != "all" for group in config.groups)
    if config.tokens_per_record is not None and config.records is not None:
        notes.append(
            f"Data as stated: {config.records:,} records of {config.tokens_per_record:g} tokens, "
            f"{config.labelled_share:.0%} of them labelled, {padding:.0%} padding in a batch; the longest "
            f"record has {longest} tokens."
        )
        return stated_workload(
            config.tokens_per_record,
            config.records,
            longest,
            config.labelled_share,
            padding,
            config.training.batching,
            images,
            apart,
        )
    try:
        return measured_workload(
            config.data, config.base, config.training.batching, apart, config.tuning, image_tokens
        )
    except UserError as error:
        notes.append(
            f"Data not read, so time is for one record: {error} Or state them with --tokens-per-record and "
            "--records."
        )
        return stated_workload(
            longest,
            1,
            longest,
            config.labelled_share,
            batching=config.training.batching,
            images=float(images > 0),
        )


def _before(
    config: PlanConfig, simulation: Simulation, workload: Workload, device: Device
) -> FeaturesBefore | None:
    """What encoders compute once."""
    if simulation.images is None or not simulation.images.flops_before or not workload.images:
        return None
    flops = simulation.images.flops_before * workload.images
    rate = peak_rate(device, simulation.configured.is_half, bool(config.training.tf32))
    return FeaturesBefore(images=workload.images, flops=flops, seconds=flops / (rate * config.mfu))


def configured_sharing(config: PlanConfig) -> Sharing:
    """How the run's devices share the work."""
    if config.num_gpus == 1:
        return "single"
    return "fsdp2" if config.training.fsdp else "ddp"


class _Clock:
    """Seconds per epoch of the run and its variants, from one FLOP model."""

    def __init__(self, config: PlanConfig, simulation: Simulation, workload: Workload) -> None:
        self.config, self.simulation, self.workload = config, simulation, workload
        variant = simulation.configured
        typical = int(workload.lengths.mean())
        self.flops = fit_flops(
            lambda rows: _all_flops(simulation.cost(variant, rows)),
            min(typical, workload.longest),
            simulation.images is not None and workload.images > 0,
            simulation.images.tokens if simulation.images is not None else 0,
        )

    def load(self, size: int, devices: int) -> EpochLoad:
        """The batches of an epoch."""
        return self.workload.epoch(
            size, devices, self.simulation.accumulation, seed=self.config.training.seed
        )

    def on(self, device: Device, cost: StepCost, sizes: ModelSizes, sharing: Sharing) -> DevicePlan:
        """The run as configured on a device; a CPU is always one."""
        devices = 1 if device.name == CPU else self.config.num_gpus
        sharing = sharing if devices > 1 else "single"
        quantisation = self.config.base.quantization
        memory = device_memory(cost, sizes, device, sharing, devices, quantisation)
        variant, size = self.simulation.configured, self.workload.size(self.config.training)
        return DevicePlan(
            device=device.name,
            devices=devices,
            memory_bytes=sum(memory.values()),
            usable_bytes=usable_bytes(device),
            seconds_per_epoch=self.seconds(device, devices, variant, size, sharing, sizes, quantisation),
        )

    def seconds(
        self,
        device: Device,
        devices: int,
        variant: Variant,
        size: int,
        sharing: Sharing,
        sizes: ModelSizes,
        quantisation: Quantization,
    ) -> float:
        """Seconds of an epoch."""
        load = self.load(size, devices)
        counted = self.flops.of(
            padded=load.padded,
            squares=load.squares,
            labelled=load.labelled,
            batches=load.batches * devices,
            blind_rows=load.blind_rows,
            seeing_records=load.seeing_records,
            images=load.images,
        )
        flops = counted * self._recomputed(variant)
        quantised = quantisation != "none"
        weights = sizes.total + (sizes.quantised(quantisation) - sizes.linear if quantised else 0)
        work = EpochWork(
            flops=flops / devices,
            passes=2 * load.batches,
            weight_bytes=weights,
            dequantised_bytes=sizes.linear if quantised else 0,
            gathered_bytes=int(sizes.cast * sizes.total * (devices - 1) / devices)
            if sharing == "fsdp2"
            else 0,
        )
        rate = peak_rate(device, variant.is_half, bool(self.config.training.tf32))
        return epoch_seconds(work, device, rate, self.config.mfu)

    def _recomputed(self, variant: Variant) -> float:
        """FLOPs of a variant's checkpointing policy, relative to the run's own."""
        own = self.simulation.configured
        if variant.checkpointing == own.checkpointing:
            return 1.0
        row = self.workload.heaviest(self.workload.smallest)
        return _all_flops(self.simulation.cost(variant, row)) / _all_flops(self.simulation.cost(own, row))


def _choices(
    config: PlanConfig, simulation: Simulation, workload: Workload, device: Device, clock: _Clock
) -> list[Choice]:
    """The comparison on the device that was asked for."""
    devices = 1 if device.name == CPU else config.num_gpus

    def timer(
        variant: Variant, size: int, sharing: Sharing, sizes: ModelSizes, quantisation: Quantization
    ) -> float:
        return clock.seconds(device, devices, variant, size, sharing, sizes, quantisation)

    return compare(simulation, workload, device, devices, timer)


def _shown(asked: Device) -> list[Device]:
    """The devices of the table, the one asked for among them."""
    listed = [asked if name == asked.name else find_device(name) for name in SHOWN_DEVICES]
    return listed if asked in listed else [asked, *listed]


def _epochs(config: PlanConfig, load: EpochLoad) -> float:
    """Epochs of the run."""
    if config.training.max_steps > 0:
        return config.training.max_steps / load.optimizer_steps
    return float(config.training.num_train_epochs)


def _precision(variant: Variant) -> str:
    """In words."""
    mixed = f" with {SHORT[variant.autocast]} autocast" if variant.autocast else ""
    return SHORT.get(variant.dtype, str(variant.dtype)) + mixed


def _all_flops(cost: StepCost) -> int:
    return cost.forward_flops + cost.backward_flops
