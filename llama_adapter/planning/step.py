"""One optimizer step of a run on tensors without content: its FLOPs and its memory over time.

Unusual: the model, the loss over labelled positions, autocast, activation checkpointing, clipping and the
optimizer are the real ones, and they really run; only the tensors have no content (fake tensors on the
CPU). Token ids, masks and labels do have content, since models look into them. FLOPs are counted as
torch's FlopCounterMode does, and for the CPU's attention kernel too, which it leaves out; causal attention in
full, as is usual. It knows nothing of configs, devices and data.

Letters: B rows, T query positions, S key positions, D size of a head.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate.utils.operations import convert_to_fp32
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, shape_wrapper

from llama_adapter.planning.timeline import BUFFERS, GRADIENTS, OPTIMIZER, WEIGHTS, MemoryTimeline, Peak
from llama_adapter.training.activation_memory import CheckpointingPolicy, apply_checkpointing
from llama_adapter.training.labelled_loss import LabelledLoss, LossKernel
from llama_adapter.training.loss import IGNORED, LabelledPositions
from llama_adapter.training.packing import packed_inputs
from llama_adapter.training.parts import TrainedParts
from llama_adapter.training.tuning import Batch


def _attention_flops(query: Sequence[int], key: Sequence[int], *rest: Any, **options: Any) -> int:
    """Two products of (T, D) by (D, S) per query head."""
    rows, heads, length, size = query
    return 2 * 2 * rows * heads * length * key[2] * size


def _attention_backward_flops(
    gradient: Sequence[int], query: Sequence[int], key: Sequence[int], *rest: Any, **options: Any
) -> int:
    """Five such products: the scores again, and the gradients of scores, queries, keys and values."""
    return 5 * _attention_flops(query, key) // 2


def _grouped_flops(left: Sequence[int], right: Sequence[int], *rest: Any, **options: Any) -> int:
    """Products of groups, such as a mixture's experts; at most one side of each is split over groups."""
    groups = left[0] if len(left) == len(right) == 3 else 1
    return 2 * groups * left[-2] * left[-1] * right[-1]


FLOP_FORMULAS: dict[Any, Any] = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_flops,
}
"""Of operators that FlopCounterMode does not know, counted as their GPU relatives; for its
``custom_mapping``."""

if hasattr(torch.ops.aten, "_grouped_mm"):  # newer than the oldest torch that is supported
    FLOP_FORMULAS[torch.ops.aten._grouped_mm] = _grouped_flops


class FlopCount(TorchDispatchMode):
    """While active, adds up the FLOPs of every operator, by the formulas of FlopCounterMode.

    That one also follows modules, with hooks that keep recomputed activations alive, so memory could not be
    measured in the same step.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0
        """So far."""
        own = {operator: shape_wrapper(formula) for operator, formula in FLOP_FORMULAS.items()}
        self._formulas = flop_registry | own

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Runs the operator and counts it."""
        result = func(*args, **(kwargs or {}))
        formula = self._formulas.get(func._overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=result)
        return result


@dataclass(frozen=True)
class Row:
    """One row of a batch: a record without its padding."""

    tokens: int
    """Its length."""
    labelled: int
    """How many of its tokens carry loss, the last ones."""
    records: int | None = None
    """How many records of equal length are packed into it; None where batches are not packed."""
    has_image: bool = False
    """Whether its records have an image."""


@dataclass(frozen=True, kw_only=True)
class StepSettings:
    """How a step is computed."""

    autocast: torch.dtype | None = None
    """Type of mixed precision; None without it."""
    checkpointing: CheckpointingPolicy = "none"
    """Policy of activation checkpointing."""
    checkpointing_every: int = 1
    """As in ``TrainingConfig``."""
    optimizer: Callable[[Sequence[nn.Parameter]], torch.optim.Optimizer] | None = None
    """Makes the optimizer; None leaves its step out."""
    max_grad_norm: float = 0.0
    """Gradient clipping; 0 for none."""
    loss_kernel: LossKernel = "auto"
    """As in ``TrainingConfig``."""
    loss_chunk_rows: int | None = None
    """Likewise."""
    use_cache: bool = False
    """Whether the model keeps keys and values as for generation; the trainer sets it in the configuration."""
    show: Callable[[nn.Module, Batch, Sequence[bool]], dict[str, Any]] | None = None
    """Puts images into a batch, see ``PlannedImages``; None for a model that sees none."""
    accumulates: bool = False
    """Whether gradients of an earlier micro-batch are there already."""


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """What a step takes, one micro-batch of it."""

    forward_flops: int
    """Floating-point operations of the forward pass and the loss."""
    backward_flops: int
    """Those of the backward pass, recomputation included."""
    peak: Peak
    """Memory when it is highest, in the second step or later: the optimizer's state is there."""
    resident: dict[str, int] = field(default_factory=dict)
    """Bytes between two steps, by part: weights, buffers, optimizer."""
    gradient_bytes: int = 0
    """All gradients together."""


def measure_step(
    model: nn.Module, rows: Sequence[Row], settings: StepSettings, fake: FakeTensorMode | None = None
) -> StepCost:
    """Takes a step with a batch of these rows.

    Args:
        model: a causal language model with an adapter; its gradients are gone afterwards.
        rows: B rows, padded to the longest.
        settings: precision, checkpointing, optimizer.
        fake: the mode of the model's tensors; None for a model with content, whose step is then real.

    Raises:
        RuntimeError: the model asks for the content of a tensor that has none; the message is torch's.
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = settings.optimizer(trainable) if settings.optimizer is not None else None
    config: Any = model.config
    config.use_cache = settings.use_cache
    timeline = MemoryTimeline(config.get_text_config().vocab_size, fake)
    timeline.place(model.parameters(), WEIGHTS)
    timeline.place(model.buffers(), BUFFERS)
    model.train()
    undo = apply_checkpointing(model, settings.checkpointing, settings.checkpointing_every)
    with timeline, _watching_gradients(trainable, timeline):
        if optimizer is not None:
            _create_state(optimizer, trainable, timeline)
        if settings.accumulates:
            _create_gradients(trainable, timeline)
        batch: dict[str, Any] = make_batch(rows)
        if settings.show is not None:
            batch = settings.show(model, batch, records_with_images(rows))
        cost = _step(model, batch, settings, timeline, optimizer)
    undo()
    return cost


def _step(
    model: nn.Module,
    batch: dict[str, Any],
    settings: StepSettings,
    timeline: MemoryTimeline,
    optimizer: torch.optim.Optimizer | None,
) -> StepCost:
    """Forward, backward and optimizer, each a phase of the timeline."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    resident = timeline.now(WEIGHTS, BUFFERS, OPTIMIZER)
    timeline.start()
    with FlopCount() as counter:
        timeline.phase = "forward"
        loss = training_loss(model, batch, settings)
        forward = counter.total
        timeline.phase = "backward"
        loss.backward()
        backward = counter.total - forward
    del loss
    gradient_bytes = sum(parameter.grad.nbytes for parameter in trainable if parameter.grad is not None)
    timeline.phase = "optimizer"
    if settings.max_grad_norm > 0:
        nn.utils.clip_grad_norm_(trainable, settings.max_grad_norm)
    if optimizer is not None:
        optimizer.step()
    model.zero_grad(set_to_none=True)
    return StepCost(
        forward_flops=forward,
        backward_flops=backward,
        peak=timeline.peak,
        resident=resident,
        gradient_bytes=gradient_bytes,
    )


def training_loss(model: nn.Module, batch: dict[str, Any], settings: StepSettings) -> Float[Tensor, ""]:
    """The trainer's loss of a micro-batch, with its scope: only the loss is left when it returns.

    Args:
        model: with an adapter or without.
        batch: what ``make_batch`` makes.
        settings: precision and loss; with autocast results come back in fp32, as accelerate does it.
    """
    positions = LabelledPositions(batch["labels"])
    kept_here = ("labels", "record_index")
    passed: dict[str, Any] = {name: value for name, value in batch.items() if name not in kept_here}
    passed.update(packed_inputs(batch))
    parts = TrainedParts.of(model)
    base: Any = parts.language_model if parts.adapter is None else parts.adapter.get_base_model()
    compute = LabelledLoss(settings.loss_kernel, settings.loss_chunk_rows, trusted=True)
    called: Any = _Autocast(model, settings.autocast) if settings.autocast is not None else model
    _, losses = compute(called, passed, positions, base)
    return losses.sum() / max(losses.numel(), 1)


class _Autocast(nn.Module):
    """A model in mixed precision, its results in fp32."""

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.model = model
        self.dtype = dtype

    def forward(self, **inputs: Any) -> Any:
        """The model's outputs; shapes as the model's own."""
        with torch.autocast("cpu", dtype=self.dtype):
            outputs = self.model(**inputs)
        return convert_to_fp32(outputs)


def make_batch(rows: Sequence[Row]) -> dict[str, Int[Tensor, "B T"]]:
    """A batch as the collators make it: right-padded, or packed; the last tokens of a row carry its loss.

    Args:
        rows: B rows; only the first one if it is packed.
    """
    if rows[0].records is not None:
        rows = rows[:1]
    longest = max(row.tokens for row in rows)
    shape = (len(rows), longest)
    ids, mask = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    labels = torch.full(shape, IGNORED)
    for index, row in enumerate(rows):
        mask[index, : row.tokens] = 1
        labels[index, row.tokens - row.labelled : row.tokens] = 0
    if rows[0].records is None:
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}
    length = -(-longest // rows[0].records)
    place = torch.arange(longest)[None]
    return {
        "input_ids": ids,
        "position_ids": place % length,
        "record_index": place // length,
        "labels": labels,
    }


def records_with_images(rows: Sequence[Row]) -> list[bool]:
    """Which records of a batch have an image, as ``make_batch`` places them."""
    return [row.has_image for row in rows for _ in range(row.records or 1)]


@contextmanager
def _watching_gradients(trainable: Sequence[nn.Parameter], timeline: MemoryTimeline) -> Iterator[None]:
    """While active, a gradient counts as one from the moment when it is complete."""

    def note(parameter: Shaped[Tensor, "..."]) -> None:
        if parameter.grad is not None:
            timeline.place([parameter.grad], GRADIENTS)

    handles = [parameter.register_post_accumulate_grad_hook(note) for parameter in trainable]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _create_gradients(trainable: Sequence[nn.Parameter], timeline: MemoryTimeline) -> None:
    for parameter in trainable:
        parameter.grad = torch.zeros_like(parameter)
        timeline.place([parameter.grad], GRADIENTS)


def _create_state(
    optimizer: torch.optim.Optimizer, trainable: Sequence[nn.Parameter], timeline: MemoryTimeline
) -> None:
    """Makes the optimizer's state, which is there from the second step on, by a step on zero gradients."""
    _create_gradients(trainable, timeline)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    states = [value for state in optimizer.state.values() for value in state.values()]
    timeline.place([value for value in states if isinstance(value, Tensor)], OPTIMIZER)
