"""Attention of queries to a few prompts: no mask, never causal, no dropout, the gate already in the values.

What is unusual: on a CPU, sequences take a kernel of their own. Fused attention kernels are made for many
keys; with ten they spend their time on reductions over ten numbers, and they keep their output, as large as
the queries, for the backward pass. Here scores are laid out prompts first, so that the softmax runs over long
rows, all rows of a batch share one product per head, and only the probabilities are kept. How much faster
this is, ``python -m benchmarks prompt_attention`` measures. Everywhere else, and for the single query of a
decoding step, torch's own ``scaled_dot_product_attention`` is used.

It does not know where keys and values come from.

Dimensions: B batch, Q query heads, T query positions, P prompts, D head size; R rows of keys and values: B,
or 1 for all rows of the batch; G products that a batch takes: Q with shared keys, else B times Q; N query
rows of one product.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import scaled_dot_product_attention


def attend_to_prompts(
    query: Float[Tensor, "B Q T D"],
    keys: Float[Tensor, "R Q P D"],
    values: Float[Tensor, "R Q P D"],
    mask: Float[Tensor, "R 1 1 P"] | None = None,
    scaling: float | None = None,
    softcap: float | None = None,
) -> Float[Tensor, "B Q T D"]:
    """Attention over all prompts.

    Args:
        query: queries of the layer.
        keys: one row per prompt and query head.
        values: likewise, gates folded in.
        mask: added to the scores, -inf for prompts that a row does not have; None where all have all.
        scaling: factor on the scores; None for 1 / sqrt(D).
        softcap: bound c of the scores, ``c * tanh(score / c)``, which fused kernels do not offer; None for
            none.
    """
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if softcap is not None:
        scores = softcap * torch.tanh(query @ keys.transpose(-1, -2) * scale / softcap)
        scores = scores if mask is None else scores + mask
        return scores.softmax(-1, dtype=torch.float32).to(values.dtype) @ values
    if mask is None and _suits_few_keys(query):
        # Autocast reaches fused kernels by itself, but not the backward pass of an autograd function.
        autocast = torch.is_autocast_enabled("cpu")
        dtype = torch.get_autocast_dtype("cpu") if autocast else query.dtype
        if keys.stride(0) == 0:  # one row, expanded
            keys, values = keys[:1], values[:1]
        return FewKeysAttention.apply(query.to(dtype), keys.to(dtype), values.to(dtype), scale)
    if keys.shape[0] != query.shape[0]:
        keys, values = (x.expand(query.shape[0], -1, -1, -1) for x in (keys, values))
    return scaled_dot_product_attention(query, keys, values, mask, scale=scale)


def _suits_few_keys(query: Float[Tensor, "B Q T D"]) -> bool:
    """Whether the kernel for few keys is the faster one here."""
    return query.device.type == "cpu" and query.shape[2] > 1 and not torch.compiler.is_compiling()


class FewKeysAttention(torch.autograd.Function):
    """``softmax(scale * q k) v`` for few keys; keeps the probabilities and none of the outputs."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Float[Tensor, "B Q T D"],
        keys: Float[Tensor, "R Q P D"],
        values: Float[Tensor, "R Q P D"],
        scale: float,
    ) -> Float[Tensor, "B Q T D"]:
        """Compute the attention output; softmax in float32 at least."""
        shared = keys.shape[0] == 1
        scores = torch.bmm(keys.flatten(0, 1) * scale, _by_product(query, shared).transpose(1, 2))
        wide = torch.promote_types(scores.dtype, torch.float32)
        probabilities = scores.softmax(1, dtype=wide).to(values.dtype)  # (G, P, N)
        output = torch.bmm(probabilities.transpose(1, 2), values.flatten(0, 1))
        ctx.save_for_backward(query, keys, values, probabilities)
        ctx.scale = scale
        return _by_row(output, query, shared)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad: Float[Tensor, "B Q T D"]
    ) -> tuple[
        Float[Tensor, "B Q T D"] | None,
        Float[Tensor, "R Q P D"] | None,
        Float[Tensor, "R Q P D"] | None,
        None,
    ]:
        """Gradients of query, keys and values, each only where it is wanted."""
        query, keys, values, probabilities = ctx.saved_tensors
        shared = keys.shape[0] == 1
        rows = _by_product(grad, shared)
        grad_query = grad_keys = grad_values = None
        if ctx.needs_input_grad[2]:
            grad_values = torch.bmm(probabilities, rows).view_as(values)
        if ctx.needs_input_grad[0] or ctx.needs_input_grad[1]:
            weighted = torch.bmm(values.flatten(0, 1), rows.transpose(1, 2))
            scores = torch._softmax_backward_data(weighted, probabilities, 1, probabilities.dtype)
            scores = scores * ctx.scale
            if ctx.needs_input_grad[1]:
                grad_keys = torch.bmm(scores, _by_product(query, shared)).view_as(keys)
            if ctx.needs_input_grad[0]:
                grad_query = _by_row(torch.bmm(scores.transpose(1, 2), keys.flatten(0, 1)), query, shared)
        return grad_query, grad_keys, grad_values, None


def _by_product(x: Float[Tensor, "B Q T D"], shared: bool) -> Float[Tensor, "G N D"]:
    """The rows of each product; with shared keys a view of what projections give, whose heads lie inside."""
    return x.transpose(0, 1).flatten(1, 2) if shared else x.flatten(0, 1)


def _by_row(
    x: Float[Tensor, "G N D"], like: Float[Tensor, "B Q T D"], shared: bool
) -> Float[Tensor, "B Q T D"]:
    """Undo ``_by_product``."""
    batch, heads, length, _ = like.shape
    return x.unflatten(1, (batch, length)).transpose(0, 1) if shared else x.unflatten(0, (batch, heads))
