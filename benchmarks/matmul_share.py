"""How much of the machine's matrix-product rate a step of 512 tokens reaches, and where the rest goes.

The rate is that of one large float32 product, measured between the steps. The step's operations are counted
while it runs; where its time goes is said by torch's profiler.
"""

import re
from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.ratios import bootstrap, seconds_of
from benchmarks.results import Row
from benchmarks.steps import gflop
from benchmarks.subjects import DEFAULT_ZERO_INIT, load_adapted
from benchmarks.training_step import training_step
from llama_adapter.demo.base_model import DEFAULT_FOLDER

TOKENS = 512
SIZE = 2048
"""Side of the square product that gives the machine's rate."""

_GROUPS = (
    ("matrix products", re.compile(r"aten::(\w*mm\w*|linear|matmul)$")),
    ("attention over tokens", re.compile(r"scaled_dot_product")),
    ("softmax and cross-entropy", re.compile(r"softmax|nll|cross_entropy|gather|logsumexp")),
    ("copies and zeros", re.compile(r"copy|fill|zero|clone|cat|contiguous|index|empty|repeat")),
    ("elementwise and sums", re.compile(r"aten::\w+")),
)
"""Where an operator belongs; the first match counts."""


def run(
    minimum: int = 9, maximum: int = 9, folder: Path = DEFAULT_FOLDER, tokens: int = TOKENS, size: int = SIZE
) -> list[Row]:
    """Measure steps and products in turn.

    Args:
        minimum: pairs.
        maximum: the same; only there because every benchmark takes it.
        folder: the base model.
        tokens: of the batch, one row.
        size: side of the square product.
    """
    step = training_step(load_adapted(DEFAULT_ZERO_INIT, folder).train(), 1, tokens)
    step()
    flops = 1e9 * gflop(step)
    left, right = torch.randn(2, size, size)
    shares, rates, seconds = [], [], []
    for _ in range(minimum):
        rates.append(2 * size**3 / seconds_of(lambda: left @ right))
        seconds.append(seconds_of(step))
        shares.append(flops / seconds[-1] / rates[-1])
    facts = {
        "GFLOP of the step": flops / 1e9,
        "seconds": sorted(seconds)[minimum // 2],
        "GFLOP/s of the machine": sorted(rates)[minimum // 2] / 1e9,
    }
    return [
        Row(
            measure=f"training step of {tokens} tokens: share of the machine's matrix-product rate",
            against=f"a float32 product of {size} x {size}",
            **bootstrap(shares).figures(),
            facts=facts | {f"time in {name}": f"{share:.0%}" for name, share in time_by_group(step).items()},
        )
    ]


def time_by_group(step: Callable[[], None]) -> dict[str, float]:
    """Share of a step's time by kind of operator; what is left is the interpreter's and autograd's own."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        step()
    spent = {name: 0.0 for name, _ in _GROUPS} | {"the rest": 0.0}
    for event in profiler.key_averages():
        group = next((name for name, pattern in _GROUPS if pattern.search(event.key)), "the rest")
        spent[group] += event.self_cpu_time_total
    total = sum(spent.values())
    return {name: time / total for name, time in spent.items()}
