"""The loss alone, forward and backward through a frozen head: chunked beside the other ways to compute it.

Half of the positions are labelled. All ways give the same losses and gradients; the default of
``loss_kernel`` and of ``loss_chunk_rows`` follow from this table.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from benchmarks.ratios import compare
from benchmarks.results import Row
from benchmarks.steps import peak_bytes
from llama_adapter.training.chunked import chunked_losses
from llama_adapter.training.labelled_loss import CHUNK_ROWS
from llama_adapter.training.loss import token_losses

OTHER_CHUNKS = (32, 64, 128, 256)
"""Rows of a chunk that are tried beside the default."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A head and a batch."""

    name: str
    """Whose head it is."""
    hidden: int
    """Width of its input."""
    vocabulary: int
    """Width of its output."""
    positions: int
    """Positions of the batch, of which half are labelled."""


SHAPES = (
    Shape(name="SmolLM2-135M", hidden=576, vocabulary=49152, positions=512),
    Shape(name="LLaMA-7B", hidden=4096, vocabulary=32000, positions=256),
)


def run(minimum: int = 7, maximum: int = 7, shapes: tuple[Shape, ...] = SHAPES) -> list[Row]:
    """Time every way against the chunked one at its default, and count the memory of each.

    Args:
        minimum: pairs in any case.
        maximum: pairs at most; nothing here has a target.
        shapes: heads and batches.
    """
    return [row for shape in shapes for row in _rows(shape, minimum, maximum)]


def _rows(shape: Shape, minimum: int, maximum: int) -> list[Row]:
    ways = kernels(shape)
    default = f"chunks of {CHUNK_ROWS}"
    ours = ways.pop(default)
    peak = peak_bytes(ours)
    table = []
    for name, other in ways.items():
        ratio, mine, seconds = compare(ours, other, None, minimum, maximum)
        table.append(
            Row(
                measure=f"loss, head of {shape.name}, {default}: times faster",
                against=name,
                value=ratio.median,
                low=ratio.low,
                high=ratio.high,
                pairs=ratio.pairs,
                facts={
                    "seconds": mine,
                    "seconds of the other": seconds,
                    "peak bytes": peak,
                    "peak bytes of the other": peak_bytes(other),
                    "labelled": f"{shape.positions // 2} of {shape.positions}",
                },
            )
        )
    return table


def kernels(shape: Shape) -> dict[str, Callable[[], torch.Tensor]]:
    """Every way to compute the loss of a batch; each returns the gradient of the hidden states."""
    generator = torch.Generator().manual_seed(0)
    head = nn.Linear(shape.hidden, shape.vocabulary, bias=False).requires_grad_(False)
    states = torch.randn(shape.positions, shape.hidden, generator=generator)
    targets = torch.randint(0, shape.vocabulary, (shape.positions,), generator=generator)
    labelled = torch.arange(shape.positions // 2, shape.positions)
    ignored = targets.clone()
    ignored[: shape.positions // 2] = -100

    def step(losses_of: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[], torch.Tensor]:
        def run_step() -> torch.Tensor:
            hidden = states.detach().requires_grad_()
            return torch.autograd.grad(losses_of(hidden).sum(), hidden)[0]

        return run_step

    def plain(hidden: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(head(hidden), ignored, reduction="none")

    def narrowed(hidden: torch.Tensor) -> torch.Tensor:
        return token_losses(head(hidden.index_select(0, labelled)), targets[labelled])

    def chunked(rows: int) -> Callable[[], torch.Tensor]:
        return step(
            lambda hidden: chunked_losses(hidden.index_select(0, labelled), targets[labelled], head, rows)
        )

    ways = {"all logits": step(plain), "logits of labelled positions": step(narrowed)}
    ways |= {f"chunks of {rows}": chunked(rows) for rows in sorted({*OTHER_CHUNKS, CHUNK_ROWS})}
    if hasattr(functional, "linear_cross_entropy"):  # torch 2.14
        for rows in (CHUNK_ROWS, None):
            options = torch.nn.LinearCrossEntropyOptions(
                batch_chunk_size=rows, chunking_method="auto" if rows is None else None
            )

            def by_torch(hidden: torch.Tensor, options: Any = options) -> torch.Tensor:
                picked = hidden.index_select(0, labelled)
                loss: torch.Tensor = functional.linear_cross_entropy(
                    picked, head.weight, targets[labelled], reduction="none", options=options
                )
                return loss

            ways[f"linear_cross_entropy, {f'chunks of {rows}' if rows else 'its own chunks'}"] = step(
                by_torch
            )
    return ways
