"""One training step on the meta device: its FLOPs, and the bytes that wait for the backward pass.

Unusual: nothing is computed, shapes alone run through the real model and the real backward, so what a frozen
weight saves and what recomputation costs is in the figures. Every token is taken to carry loss, an upper
bound. It knows nothing of configs.

Letters: B rows, T tokens, S keys, D size of a head.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class StepCost:
    """What one forward and backward pass over a batch takes."""

    forward_flops: int
    """Floating-point operations of the forward pass."""
    backward_flops: int
    """Those of the backward pass, recomputation included."""
    saved_bytes: int
    """Tensors that the forward pass keeps for the backward pass; weights are not counted."""
    gradient_bytes: int
    """Gradients of the trainable parameters."""


def measure_step(model: nn.Module, rows: int, length: int) -> StepCost:
    """Takes one step with a batch of `rows` x `length` tokens.

    Args:
        model: a causal language model on the meta device.
        rows: B.
        length: T.

    Raises:
        NotImplementedError: the model asks for the content of a tensor, which is not there.
    """
    input_ids = torch.zeros(rows, length, dtype=torch.long, device="meta")
    # a finished mask: models look into a smaller one, or into the positions, to see whether it is needed
    dtype = next(model.parameters()).dtype
    mask = torch.zeros(1, 1, length, length, dtype=dtype, device="meta").expand(rows, -1, -1, -1)
    model.train()
    saved: dict[int, int] = {}
    with FusedAttention(), _saving_into(saved, model), FlopCounterMode(display=False) as forward:
        logits = model(input_ids=input_ids, attention_mask=mask, use_cache=False).logits
        loss = functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), input_ids[:, 1:].flatten())
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return StepCost(
        forward_flops=forward.get_total_flops(),
        backward_flops=backward.get_total_flops(),
        saved_bytes=sum(saved.values()),
        gradient_bytes=sum(gradient.nbytes for gradient in gradients),
    )


class FusedAttention(TorchFunctionMode):
    """While active, attention on the meta device takes the path it takes on a GPU.

    Left alone, torch spells it out there and keeps every score for the backward pass.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Passes every other function through."""
        if func is functional.scaled_dot_product_attention:
            return _fused_attention(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _fused_attention(
    query: Float[Tensor, "B heads T D"],
    key: Float[Tensor, "B kv_heads S D"],
    value: Float[Tensor, "B kv_heads S D"],
    attn_mask: Shaped[Tensor, "..."] | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Float[Tensor, "B heads T D"]:
    """The fused kernel behind `scaled_dot_product_attention`, with its arguments."""
    groups = query.shape[1] // key.shape[1] if enable_gqa else 1
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    if attn_mask is not None:
        attn_mask = attn_mask.to(query.dtype).expand(*query.shape[:3], key.shape[2])
    output: Tensor = torch.ops.aten._scaled_dot_product_efficient_attention(
        query, key, value, attn_mask, True, dropout_p, is_causal, scale=scale
    )[0]
    return output


def optimizer_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of an optimizer's state after one step on the gradients that are there."""
    optimizer.step()
    tensors = [value for state in optimizer.state.values() for value in state.values()]
    return sum(value.nbytes for value in tensors if isinstance(value, Tensor))


@contextmanager
def _saving_into(saved: dict[int, int], model: nn.Module) -> Iterator[None]:
    """Notes the size of every storage that autograd keeps, except the model's own.

    Args:
        saved: storage -> bytes, filled while active.
        model: its parameters and buffers are there anyway.
    """
    own = {_storage(tensor) for tensor in [*model.parameters(), *model.buffers()]}

    def note(tensor: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
        if _storage(tensor) not in own:
            saved[_storage(tensor)] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        yield


def _storage(tensor: Shaped[Tensor, "..."]) -> int:
    """Identity of a tensor's memory; on the meta device there is no address."""
    return int(StorageWeakRef(tensor.untyped_storage()).cdata)
