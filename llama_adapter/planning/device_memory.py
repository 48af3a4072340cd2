"""From one step's tensors to the memory of one GPU: what is shared out, gathered, quantised, and not tensors.

Everything here is arithmetic on counted sizes, and what concerns GPUs is unverified: this project has none.
The assumptions stand beside the constants. `make gpu-check` compares them with a GPU.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from llama_adapter.hardware import CPU, GIB, Device
from llama_adapter.planning.step import StepCost
from llama_adapter.planning.timeline import ACTIVATIONS, CASTS, GRADIENTS, LOGITS, OPTIMIZER, WEIGHTS, WORKING
from llama_adapter.quantization import Quantization
from llama_adapter.training.parts import TrainedParts

CONTEXT_BYTES = int(0.6 * GIB)
"""CUDA context with its kernels, cuBLAS workspace (32 MiB on Hopper, 8 MiB before) and NCCL buffers."""

FRAGMENTATION = 0.06
"""Memory that torch's caching allocator holds and cannot use, as a share of what comes and goes in a step."""

DRIVER_SHARE = 0.015
"""Share of a GPU's memory that its driver keeps."""

QUANTISED_BYTES = {"int8": 1.0, "fp8": 1.0, "nf4": 0.5}
"""Bytes of one weight."""

_BLOCK, _BLOCK_SCALE = 64, 1 + 4 / 256
"""Weights of NF4 that share a scale, and its bytes: 8 bits, with one in fp32 for 256 of them."""

Sharing = Literal["single", "ddp", "fsdp2"]

MARGINS = "CUDA context, fragmentation"
"""The part that stands for everything that is no tensor."""
BUCKETS, GATHERED = "DDP buckets", "gathered layers"


@dataclass(frozen=True, kw_only=True)
class ModelSizes:
    """Bytes of a model's parameters, as far as sharing and quantisation ask for them."""

    total: int
    """All of them."""
    largest_block: int
    """Of the largest layer."""
    outside_blocks: int
    """Embeddings, last norm, output head."""
    linear: int
    """Weights of frozen linear maps in the layers: what is quantised."""
    linear_rows: int
    """Their output features together: int8 keeps one scale for each."""
    largest_linear: int
    """The largest of these weights."""
    linear_itemsize: int
    """Bytes of one of their elements."""
    trained_at_once: int
    """Of the layer that has most of them, and outside of layers: weights whose gradients are whole together
    where a model is sharded."""
    cast: float = 1.0
    """Size of a weight as it computes beside the one it is kept in: 1/2 for bf16 and fp32."""

    @property
    def linear_numel(self) -> int:
        """Number of weights that are quantised."""
        return self.linear // self.linear_itemsize

    def quantised(self, kind: Quantization) -> int:
        """Bytes of the quantised weights with their scales: fp32 per row, in NF4 per block."""
        if kind == "none":
            return self.linear
        scales = self.linear_numel / _BLOCK * _BLOCK_SCALE if kind == "nf4" else 4 * self.linear_rows
        return int(self.linear_numel * QUANTISED_BYTES[kind] + scales)


def model_sizes(model: nn.Module, autocast: torch.dtype | None = None) -> ModelSizes:
    """Sizes of a model with its adapter.

    Args:
        model: whose content is not looked at.
        autocast: of mixed precision.
    """
    parts = TrainedParts.of(model)
    named: Any = parts.language_model if parts.adapter is None else parts.adapter.get_base_model()
    names = set(getattr(named, "_no_split_modules", None) or [])
    blocks = [module for module in model.modules() if type(module).__name__ in names]
    in_blocks = [_num_bytes(block) for block in blocks]
    total = _num_bytes(model)
    trained = [_num_bytes(block, trained=True) for block in blocks]
    kept = max((weight.element_size() for weight in model.parameters()), default=1)
    linear = [weight for block in blocks for weight in _frozen_linear(block)]
    return ModelSizes(
        total=total,
        largest_block=max(in_blocks, default=total),
        outside_blocks=total - sum(in_blocks),
        linear=sum(weight.nbytes for weight in linear),
        linear_rows=sum(weight.shape[0] for weight in linear),
        largest_linear=max((weight.nbytes for weight in linear), default=0),
        linear_itemsize=linear[0].element_size() if linear else 1,
        trained_at_once=max(trained, default=0) + _num_bytes(model, trained=True) - sum(trained),
        cast=1.0 if autocast is None else min(1.0, autocast.itemsize / kept),
    )


def device_memory(
    cost: StepCost,
    sizes: ModelSizes,
    device: Device,
    sharing: Sharing = "single",
    devices: int = 1,
    quantisation: Quantization = "none",
) -> dict[str, int]:
    """Bytes on one device when they are most, by part.

    Args:
        cost: the step, counted on one device.
        sizes: of the same model.
        device: a GPU, or the CPU, which has none of a GPU's extras.
        sharing: one device; DDP, all on each; FSDP2, each a share of weights, gradients and optimizer.
        devices: how many share.
        quantisation: of the frozen linear maps in the layers.
    """
    parts = dict(cost.peak.parts)
    if quantisation != "none":
        parts[WEIGHTS] += sizes.quantised(quantisation) - sizes.linear
        parts[CASTS] = 0
        # the weight of the map that is running, turned back, and that of the next
        parts[WORKING] = parts.get(WORKING, 0) + 2 * sizes.largest_linear
    if sharing == "ddp":
        parts[BUCKETS] = cost.gradient_bytes
    if sharing == "fsdp2":
        parts = _sharded(parts, sizes, devices)
    if device.name != CPU:
        moving = sum(parts.get(part, 0) for part in (ACTIVATIONS, LOGITS, WORKING, CASTS, GATHERED))
        parts[MARGINS] = CONTEXT_BYTES + int(FRAGMENTATION * moving)
    return {part: size for part, size in parts.items() if size}


def _sharded(parts: Mapping[str, int], sizes: ModelSizes, devices: int) -> dict[str, int]:
    """FSDP2: 1/N of everything; whole are the layer that runs, the next one, and what is in no layer.

    The latter, embeddings and output head, are gathered at the start of a step and stay. Weights are gathered
    in the type that computes, so autocast copies none; gradients are in it too, and in that of the weights
    while they are added up.
    """
    shares = {part: size for part, size in parts.items() if part != CASTS}
    for part in (WEIGHTS, GRADIENTS, OPTIMIZER):
        shares[part] = -(-shares.get(part, 0) // devices)
    gradients = sizes.trained_at_once * (1 if sizes.cast == 1 else 1 + sizes.cast)
    shares[GATHERED] = int(sizes.cast * (2 * sizes.largest_block + sizes.outside_blocks) + gradients)
    return shares


def usable_bytes(device: Device) -> int:
    """Memory of a device that a process can have."""
    return int(device.memory_bytes * (1 - (0 if device.name == CPU else DRIVER_SHARE)))


def _frozen_linear(block: nn.Module) -> list[Shaped[Tensor, "..."]]:
    """Weights of a layer's frozen linear maps."""
    maps = [module for module in block.modules() if isinstance(module, nn.Linear)]
    return [module.weight for module in maps if not module.weight.requires_grad]


def _num_bytes(module: nn.Module, trained: bool = False) -> int:
    return sum(weight.nbytes for weight in module.parameters() if weight.requires_grad or not trained)
