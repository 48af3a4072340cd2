"""Attention to prompts alone, forward and backward: the kernel for few keys beside torch's fused one."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.ratios import compare
from benchmarks.results import Row
from llama_adapter.adapters.prompt_attention import attend_to_prompts

BATCH, HEADS, PROMPTS, HEAD_SIZE = 4, 9, 10, 64
"""Of SmolLM2-135M with ten prompts."""
FUSED = "scaled_dot_product_attention"


def run(minimum: int = 25, maximum: int = 25, lengths: tuple[int, ...] = (128, 512)) -> list[Row]:
    """Time both kernels at some lengths, in float32 and bfloat16.

    Args:
        minimum: pairs at least.
        maximum: pairs at most.
        lengths: tokens of each row.
    """
    return [
        _row(dtype, length, minimum, maximum)
        for dtype in (torch.float32, torch.bfloat16)
        for length in lengths
    ]


def _row(dtype: torch.dtype, length: int, minimum: int, maximum: int) -> Row:
    query = torch.randn(BATCH, length, HEADS, HEAD_SIZE, dtype=dtype).transpose(1, 2).requires_grad_()
    keys, values = (
        torch.randn(1, HEADS, PROMPTS, HEAD_SIZE, dtype=dtype, requires_grad=True) for _ in range(2)
    )
    output_gradient = torch.randn(query.shape, dtype=dtype)

    def both_passes(attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[[], object]:
        """Forward and backward, (B, Q, T, D) in and out."""
        inputs = (query, keys, values)
        return lambda: torch.autograd.grad(attend(*inputs), inputs, output_gradient)

    def fused(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Torch's kernel with the prompts expanded to (B, Q, P, D)."""
        rows = query.shape[0]
        return scaled_dot_product_attention(
            query, keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1)
        )

    ratio, mine, other = compare(both_passes(attend_to_prompts), both_passes(fused), None, minimum, maximum)
    return Row(
        measure=f"attention to {PROMPTS} prompts, {str(dtype).removeprefix('torch.')}: times faster",
        against=FUSED,
        **ratio.figures(),
        facts={
            "milliseconds": 1000 * mine,
            "milliseconds of the other": 1000 * other,
            "queries": f"{BATCH} x {length}",
        },
    )
