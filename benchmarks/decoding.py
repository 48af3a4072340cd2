"""Greedy decoding of 64 tokens with an adapter, beside the bare base model and PEFT's adapter."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.ratios import compare
from benchmarks.results import Row
from benchmarks.subjects import ADAPTION_PROMPT, ZERO_INIT, load_adapted, load_base
from llama_adapter.demo.base_model import DEFAULT_FOLDER

PROMPT_TOKENS, NEW_TOKENS = 32, 64
BASE = "the bare base model"
TIMES_SLOWER, TIMES_FASTER = 1.04, 1.2


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
    theirs = load_adapted(ADAPTION_PROMPT, folder)
    table = []
    for rows in (1, 8):
        mine = generation(ours, rows, new_tokens)
        slower, base_seconds, seconds = compare(
            generation(base, rows, new_tokens), mine, TIMES_SLOWER, minimum, maximum
        )
        facts = {"tokens/s": rows * new_tokens / seconds, "of the other": rows * new_tokens / base_seconds}
        table.append(
            Row(
                measure=f"decoding, batch {rows}: times the time",
                against=BASE,
                value=slower.median,
                low=slower.low,
                high=slower.high,
                pairs=slower.pairs,
                target=TIMES_SLOWER,
                at_most=True,
                facts=facts,
            )
        )
        faster, seconds, other = compare(
            mine, generation(theirs, rows, new_tokens), TIMES_FASTER, minimum, maximum
        )
        facts = {"tokens/s": rows * new_tokens / seconds, "of the other": rows * new_tokens / other}
        table.append(
            Row(
                measure=f"decoding, batch {rows}: times faster",
                against=ADAPTION_PROMPT,
                value=faster.median,
                low=faster.low,
                high=faster.high,
                pairs=faster.pairs,
                target=TIMES_FASTER,
                facts=facts,
            )
        )
    return table


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
