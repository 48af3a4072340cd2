"""Losses of hidden states chunk by chunk: at no time are there more logits than those of one chunk.

What is unusual: with a frozen head the gradient of the hidden states is computed in the forward pass, while a
chunk's logits are there, so nothing of the vocabulary's width waits for the backward pass and nothing is
computed twice. A loss depends on its own hidden state only, so the backward pass multiplies each kept row by
the gradient of its loss, and any weighting of the losses afterwards is exact. A head that trains needs its
own gradient too: its chunks are recomputed in the backward pass. The head is a function here, so quantised,
tied, capped and wrapped ones are all the same; this file knows no model.

Letters: N labelled positions, C rows of a chunk, H hidden size, V vocabulary.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from llama_adapter.training.loss import token_losses

LogitsOf = Callable[[Tensor], Tensor]
"""From hidden states (C, H) to the logits (C, V) that the model would give for them."""

_FP16_SCALE = 1024.0
"""Gradients of fp16 logits are scaled by this while they are fp16: most probabilities of a vocabulary of
32,000 lie below the smallest fp16 number, 6e-8. The largest gradient is 1, so 1024 is far from 65,504."""


def chunked_losses(
    hidden: Float[Tensor, "N H"],
    targets: Int[Tensor, " N"],
    logits_of: LogitsOf,
    chunk_rows: int,
    label_smoothing: float = 0.0,
    head_trains: bool = False,
) -> Float[Tensor, " N"]:
    """Loss of each target in nats, in fp32.

    Args:
        hidden: What the head gets, labelled positions only.
        targets: Token ids.
        logits_of: The head and whatever the model does to its output.
        chunk_rows: Rows whose logits are there at once.
        label_smoothing: Share of the target mass spread over the vocabulary.
        head_trains: Whether ``logits_of`` has parameters that want gradients.
    """
    wants_gradient = torch.is_grad_enabled() and hidden.requires_grad
    if wants_gradient and not head_trains:
        losses: Tensor = _FrozenHead.apply(hidden, targets, logits_of, chunk_rows, label_smoothing)
        return losses

    def of_chunk(rows: Float[Tensor, "C H"], goals: Int[Tensor, " C"]) -> Float[Tensor, " C"]:
        return token_losses(logits_of(rows), goals, label_smoothing).to(hidden.device)

    # Without any label one empty chunk still connects the head's parameters to the result.
    pieces = [slice(start, start + chunk_rows) for start in range(0, max(len(hidden), 1), chunk_rows)]
    if head_trains and torch.is_grad_enabled():
        return torch.cat(
            [checkpoint(of_chunk, hidden[piece], targets[piece], use_reentrant=False) for piece in pieces]
        )
    return torch.cat([of_chunk(hidden[piece], targets[piece]) for piece in pieces])


class _FrozenHead(torch.autograd.Function):
    """Losses and, for later, the gradient of each with respect to its own hidden state."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Float[Tensor, "N H"],
        targets: Int[Tensor, " N"],
        logits_of: LogitsOf,
        chunk_rows: int,
        label_smoothing: float,
    ) -> Float[Tensor, " N"]:
        """Go through the chunks; each one's logits are gone when the next one's are computed."""
        losses = hidden.new_empty(len(hidden), dtype=torch.float32)
        gradients = torch.empty_like(hidden)
        ctx.scale = 1.0
        for start in range(0, len(hidden), chunk_rows):
            piece = slice(start, start + chunk_rows)
            rows = hidden[piece].detach().requires_grad_()
            with torch.enable_grad():
                logits = logits_of(rows)
            ctx.scale = _FP16_SCALE if logits.dtype is torch.float16 else 1.0
            losses[piece], slopes = _losses_and_slopes(logits.detach(), targets[piece], label_smoothing)
            slopes = slopes.mul_(ctx.scale).to(logits.dtype)
            (gradients[piece],) = torch.autograd.grad(logits, rows, slopes)
            del logits, slopes  # before the next chunk, not after it
        ctx.save_for_backward(gradients)
        return losses

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, upstream: Float[Tensor, " N"]
    ) -> tuple[Float[Tensor, "N H"], None, None, None, None]:
        """Weigh each row by the gradient of its loss."""
        (gradients,) = ctx.saved_tensors
        weights = (upstream / ctx.scale)[:, None]
        return (gradients * weights).to(gradients.dtype), None, None, None, None


def _losses_and_slopes(
    logits: Float[Tensor, "C V"], targets: Int[Tensor, " C"], label_smoothing: float
) -> tuple[Float[Tensor, " C"], Float[Tensor, "C V"]]:
    """Cross-entropy in fp32 and its gradient with respect to the logits, in one buffer."""
    targets = targets.to(logits.device)[:, None]
    log_probabilities = functional.log_softmax(logits.float(), dim=-1)
    losses = -log_probabilities.gather(1, targets)[:, 0]
    if label_smoothing:
        losses = (1 - label_smoothing) * losses - label_smoothing * log_probabilities.mean(dim=-1)
    slopes = log_probabilities.exp_()
    if label_smoothing:
        slopes -= label_smoothing / logits.shape[-1]
    slopes.scatter_add_(1, targets, slopes.new_full(targets.shape, label_smoothing - 1))
    return losses, slopes
