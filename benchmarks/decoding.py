"""Greedy decoding of 64 tokens with an adapter, beside the bare base model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import DynamicCache

from benchmarks.ratios import compare
from benchmarks.results import Row
from benchmarks.subjects import ZERO_INIT, load_adapted, load_base
from llama_adapter.demo.base_model import DEFAULT_FOLDER

PROMPT_TOKENS, NEW_TOKENS = 32, 64
BASE = "the bare base model"
TIMES_SLOWER, UPPER_END = 1.04, 1.06
OPERATORS = 2
"""One attention and one addition: what no implementation beside the model's own attention can do without."""


def run(
    minimum: int = 50, maximum: int = 50, folder: Path = DEFAULT_FOLDER, new_tokens: int = NEW_TOKENS
) -> list[Row]:
    """Time generations of one row and of eight.

    Args:
        minimum: pairs at least.
        maximum: pairs at most.
        folder: the base model.
        new_tokens: of each generation.
    """
    ours, base = load_adapted(ZERO_INIT, folder), load_base(folder)
    table = [_operators(ours, base)]
    for rows in (1, 8):
        steps = (generation(base, rows, new_tokens), generation(ours, rows, new_tokens))
        slower, base_seconds, seconds = compare(*steps, TIMES_SLOWER, minimum, maximum)
        table.append(
            Row(
                measure=f"decoding, batch {rows}: times the time",
                against=BASE,
                **slower.figures(),
                target=TIMES_SLOWER,
                limit=UPPER_END,
                at_most=True,
                facts=rates(rows * new_tokens, seconds, base_seconds),
            )
        )
    return table


def rates(tokens: int, seconds: float, other_seconds: float) -> dict[str, float]:
    """Tokens per second of both sides."""
    return {"tokens/s": tokens / seconds, "of the other": tokens / other_seconds}


def _operators(ours: nn.Module, base: nn.Module) -> Row:
    """How many more operators a further token costs than with the base alone, per layer: exact."""
    layers = base.get_submodule("model.layers")
    counts = [operators_per_token(model) for model in (ours, base)]
    per_layer = (counts[0] - counts[1]) / len(list(layers.children()))
    return Row(
        measure="decoding: operators of prompts per layer and token",
        against=BASE,
        value=per_layer,
        low=per_layer,
        high=per_layer,
        pairs=1,
        target=OPERATORS,
        at_most=True,
        facts={"operators of a token": counts[0], "of the other": counts[1]},
    )


def operators_per_token(model: nn.Module) -> int:
    """Operators that one more token costs, views left out."""
    causal: Any = model
    cache = DynamicCache(config=causal.config)
    ids = torch.zeros(1, 4, dtype=torch.long)
    with torch.no_grad():
        # by position: the name of the cache's argument differs between releases of transformers
        for tokens in (ids, ids[:, :1]):
            with _Counter() as counter:
                causal.get_decoder()(tokens, None, None, cache)
    return counter.count


class _Counter(TorchDispatchMode):
    """Counts the operators that compute something."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


def generation(model: nn.Module, rows: int, new_tokens: int) -> Callable[[], None]:
    """A generation of exactly ``new_tokens`` for each row."""
    causal: Any = model
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, causal.config.vocab_size, (rows, PROMPT_TOKENS), generator=generator)

    def generate() -> None:
        causal.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=new_tokens,
            min_new_tokens=new_tokens,
            do_sample=False,
            pad_token_id=0,
        )

    return generate
