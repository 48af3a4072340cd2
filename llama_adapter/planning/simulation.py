"""Steps of one run's model in any variant: precision, mixed precision, activation checkpointing, rows.

Every step has a variant built for it, which costs seconds whatever its size, so results are kept. What the
run's settings mean for a step (optimizer, clipping, accumulation) is decided here and nowhere else in the
planner. It does not know devices.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
import transformers
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from llama_adapter.errors import UserError
from llama_adapter.models import load_base_config
from llama_adapter.planning.fake_model import (
    FeatureShape,
    base_dtype,
    build_on_meta,
    show_conditioner,
    to_fake_cpu,
)
from llama_adapter.planning.step import Row, StepCost, StepSettings, measure_step
from llama_adapter.training import TrainingConfig
from llama_adapter.training.activation_memory import CheckpointingPolicy, settled
from llama_adapter.training.labelled_loss import CHUNK_ROWS, GPU_CHUNK_ROWS
from llama_adapter.training.presets import accumulation_for
from llama_adapter.training.run import TrainConfig
from llama_adapter.training.tuning import PlannedImages
from llama_adapter.vision import empty_encoder

POLICIES: tuple[CheckpointingPolicy, ...] = ("none", "selective", "mlp", "layer")
"""Activation checkpointing, from the fastest to the smallest."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What decides a step, besides its rows."""

    dtype: torch.dtype
    """Of the base weights."""
    autocast: torch.dtype | None = None
    """Of mixed precision."""
    checkpointing: CheckpointingPolicy = "none"
    """A name of ``POLICIES``."""

    @property
    def is_half(self) -> bool:
        """Whether matrix products are computed in 16 bit."""
        return self.autocast is not None or self.dtype.itemsize == 2


class Simulation:
    """Takes steps of a run that exist as shapes only.

    Raises:
        UserError: the base has no readable configuration, or the adapter does not fit it.
    """

    def __init__(
        self,
        config: TrainConfig,
        devices: int = 1,
        on_gpu: bool = False,
        features: FeatureShape | None = None,
    ) -> None:
        self.config = config
        self.features = features
        """Of an image that a conditioner takes; None for a run without."""
        self.base_config = load_base_config(config.base)
        self.images = self._find_images()
        """How steps show images; None for a model that sees none."""
        default = GPU_CHUNK_ROWS if on_gpu else CHUNK_ROWS
        self._chunk_rows = config.training.loss_chunk_rows or default
        self.accumulation = accumulation_on(config.training, devices)
        """Micro-batches of an optimizer step on so many devices."""
        self.notes = list[str]()
        """What is left out."""
        self._optimizer = self._find_optimizer()
        self._found: dict[tuple[Variant, tuple[Row, ...]], StepCost] = {}

    @property
    def configured(self) -> Variant:
        """The variant that the run asks for."""
        training = self.config.training
        mixed = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(str(training.mixed_precision))
        return Variant(
            dtype=base_dtype(self.config.base, self.base_config),
            autocast=mixed,
            checkpointing="layer" if training.activation_checkpointing else self._policy,
        )

    @cached_property
    def _policy(self) -> CheckpointingPolicy:
        """The run's policy, in a name of ``POLICIES``."""
        asked = self.config.training.checkpointing
        return settled(self.meta_model(torch.float32), asked) if asked == "auto" else asked

    def meta_model(self, dtype: torch.dtype) -> nn.Module:
        """The model on the meta device, to count parameters."""
        return build_on_meta(self.base_config, self.config, dtype, self.features)

    def cost(self, variant: Variant, rows: Sequence[Row]) -> StepCost:
        """One micro-batch of these rows, and the optimizer.

        Raises:
            UserError: the model's forward depends on the content of its tensors.
        """
        key = variant, tuple(rows)
        if key not in self._found:
            self._found[key] = self._take(variant, rows)
        return self._found[key]

    def _take(self, variant: Variant, rows: Sequence[Row]) -> StepCost:
        mode = FakeTensorMode(allow_non_fake_inputs=True)
        model = to_fake_cpu(self.meta_model(variant.dtype), mode)
        settings = StepSettings(
            autocast=variant.autocast,
            checkpointing=variant.checkpointing,
            checkpointing_every=self.config.training.checkpointing_every,
            optimizer=self._optimizer,
            max_grad_norm=self.config.training.max_grad_norm,
            loss_kernel=self.config.training.loss_kernel,
            loss_chunk_rows=self._chunk_rows,
            use_cache=self.config.training.use_cache,
            show=None if self.images is None else self.images.show,
            accumulates=self.accumulation > 1,
        )
        try:
            with _without_tracebacks():
                return measure_step(model, rows, settings, mode)
        except (RuntimeError, NotImplementedError) as error:
            said = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
            raise UserError(
                f"The model in {self.config.base.name_or_path!r} cannot be planned, as torch cannot run it "
                f"without content: {said}. Use a short run with logging_steps=1 instead, its log has "
                "peak_memory_gib."
            ) from error

    def _find_images(self) -> PlannedImages | None:
        """Of a model that trains as a whole, or of a conditioner."""
        if self.config.tuning is not None:
            return self.config.tuning.planned_images(self.config.base, self.config.data)
        if self.features is None or self.config.vision is None:
            return None
        live = self.config.data.images == "live"
        pixels = empty_encoder(self.config.vision).image_size if live else None
        return PlannedImages(show=partial(show_conditioner, self.features, pixels))

    def _find_optimizer(self) -> Any:
        kind, options = transformers.Trainer.get_optimizer_cls_and_kwargs(self.config.training)
        if not kind.__module__.startswith("torch.optim"):
            self.notes.append(
                f"The optimizer {kind.__name__} is not torch's: its state and its step are not counted."
            )
            return None
        return lambda parameters: kind(parameters, **options)


@contextmanager
def _without_tracebacks() -> Iterator[None]:
    """While active, torch does not log the traceback of an operator that fails; the error says it all."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before


def accumulation_on(training: TrainingConfig, devices: int) -> int:
    """Micro-batches of an optimizer step; a preset keeps its rows per step, so more devices need fewer."""
    rows = training.per_device_train_batch_size
    preset = training.preset
    if preset is None or training.gradient_accumulation_steps != accumulation_for(
        preset, rows * training.world_size
    ):
        return training.gradient_accumulation_steps
    return accumulation_for(preset, rows * devices)
