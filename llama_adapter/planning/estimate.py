"""From a training config to the figures of its run.

The base is built from its config.json on the meta device, the adapter is attached as in training, and one
step is taken there. What cannot be counted so is None, with a note that says why. It does not know how
figures are printed.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
import transformers
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

from llama_adapter.errors import UserError
from llama_adapter.models import BaseModelConfig, attach_adapter, check_base
from llama_adapter.planning.parameters import PartCount, count_parts
from llama_adapter.planning.step import StepCost, measure_step, optimizer_bytes
from llama_adapter.training import TrainingConfig
from llama_adapter.training.run import TrainConfig

_log = logging.getLogger(__name__)

_SHORT_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


@dataclass(kw_only=True)
class Plan:
    """The figures of a run, in numbers and bytes; per device unless said otherwise."""

    base: str
    """The base model."""
    dtype: str
    """Precision of its weights."""
    rows: int
    """Rows of one forward pass."""
    length: int
    """Tokens of a row."""
    passes_per_step: int
    """Forward passes of one optimizer step: gradient accumulation."""
    parts: list[PartCount]
    """Parameters by part."""
    gradient_bytes: int | None
    """Gradients."""
    optimizer_bytes: int | None
    """State of the optimizer."""
    saved_bytes: int | None
    """What the forward pass keeps for the backward pass."""
    forward_flops: int | None
    """Of one optimizer step."""
    backward_flops: int | None
    """Of one optimizer step."""
    notes: list[str] = field(default_factory=list)
    """What is assumed or missing."""

    @property
    def trainable(self) -> int:
        """Number of trainable parameters."""
        return sum(part.trainable for part in self.parts)

    @property
    def frozen(self) -> int:
        """Number of frozen parameters."""
        return sum(part.frozen for part in self.parts)

    @property
    def weight_bytes(self) -> int:
        """Size of all parameters."""
        return sum(part.num_bytes for part in self.parts)

    @property
    def total_bytes(self) -> int | None:
        """Weights, gradients, optimizer and saved tensors together, if all are known."""
        return _sum([self.weight_bytes, self.gradient_bytes, self.optimizer_bytes, self.saved_bytes])


def estimate(config: TrainConfig) -> Plan:
    """Counts what one step of a training run takes.

    Raises:
        UserError: the base has no readable configuration, or the adapter does not fit it.
    """
    base_config = load_base_config(config.base)
    model = build_on_meta(base_config, config)
    training, passes = config.training, config.training.gradient_accumulation_steps
    notes = ["Saved tensors and FLOPs take every row at full length, with every token carrying loss."]
    if getattr(base_config, "quantization_config", None) is not None:
        notes.append("The base is quantised; its weights are counted unquantised.")
    cost = _try_step(model, training.per_device_train_batch_size, config.data.max_length, notes)
    saved = cost.saved_bytes if cost else None
    if training.activation_checkpointing or training.checkpointing != "none":
        saved = None
        notes.append("Saved tensors are not estimated under activation checkpointing.")
    return Plan(
        base=config.base.name_or_path,
        dtype=str(base_dtype(config.base, base_config)).removeprefix("torch."),
        rows=training.per_device_train_batch_size,
        length=config.data.max_length,
        passes_per_step=passes,
        parts=count_parts(model),
        gradient_bytes=cost.gradient_bytes if cost else None,
        optimizer_bytes=_try_optimizer(model, training, notes) if cost else None,
        saved_bytes=saved,
        forward_flops=cost.forward_flops * passes if cost else None,
        backward_flops=cost.backward_flops * passes if cost else None,
        notes=notes,
    )


def load_base_config(base: BaseModelConfig) -> PretrainedConfig:
    """The base model's configuration; nothing else is read.

    Raises:
        UserError: there is none.
    """
    check_base(base.name_or_path)
    try:
        return AutoConfig.from_pretrained(
            base.name_or_path, revision=base.revision, trust_remote_code=base.trust_remote_code
        )
    except (OSError, ValueError) as error:
        said = f"The configuration of {base.name_or_path!r} could not be read: {error}."
        raise UserError(f"{said} Set base.name_or_path to a model.") from error


def base_dtype(base: BaseModelConfig, config: PretrainedConfig) -> torch.dtype:
    """Precision of the base weights; `auto` is the one they were saved in."""
    if base.dtype == "auto":
        return getattr(config, "dtype", None) or torch.float32
    found = getattr(torch, _SHORT_DTYPES.get(base.dtype, base.dtype))
    return found if isinstance(found, torch.dtype) else torch.float32


def build_on_meta(base_config: PretrainedConfig, config: TrainConfig) -> nn.Module:
    """The frozen base with the run's adapter, all on the meta device."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            base_config,
            dtype=base_dtype(config.base, base_config),
            attn_implementation=config.base.attn_implementation,
            trust_remote_code=config.base.trust_remote_code,
        )
        model.requires_grad_(False)
        return attach_adapter(model, config.adapter)


def _try_step(model: nn.Module, rows: int, length: int, notes: list[str]) -> StepCost | None:
    """The cost of a step, or a note when the model cannot run without content."""
    try:
        return measure_step(model, rows, length)
    except (NotImplementedError, RuntimeError) as error:
        _log.debug("no step on the meta device", exc_info=error)
        reason = str(error).strip().splitlines()[0]
        notes.append(
            f"FLOPs and saved tensors are not counted, {type(model).__name__} needs values: {reason}"
        )
        return None


def _try_optimizer(model: nn.Module, training: TrainingConfig, notes: list[str]) -> int | None:
    """The optimizer's state, or a note when it is not one of torch's own."""
    kind, options = transformers.Trainer.get_optimizer_cls_and_kwargs(training)
    if not kind.__module__.startswith("torch.optim"):
        notes.append(f"The state of the optimizer {kind.__name__} is not estimated.")
        return None
    options.pop("fused", None)  # the same state, but no meta kernel
    return optimizer_bytes(kind([p for p in model.parameters() if p.requires_grad], **options))


def _sum(values: Iterable[int | None]) -> int | None:
    """The sum, or None when a value is missing."""
    known = list(values)
    return None if None in known else sum(value for value in known if value is not None)
