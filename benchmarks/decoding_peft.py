"""Greedy decoding of 64 tokens with an adapter, beside PEFT's adapter."""

from pathlib import Path

from benchmarks.decoding import NEW_TOKENS, generation, rates
from benchmarks.ratios import compare
from benchmarks.results import Row
from benchmarks.subjects import ADAPTION_PROMPT, ZERO_INIT, load_adapted
from llama_adapter.demo.base_model import DEFAULT_FOLDER

TIMES_FASTER = 1.2


def run(
    minimum: int = 50, maximum: int = 50, folder: Path = DEFAULT_FOLDER, new_tokens: int = NEW_TOKENS
) -> list[Row]:
    """Time generations of one row and of eight; the arguments are those of ``decoding.run``."""
    ours, theirs = load_adapted(ZERO_INIT, folder), load_adapted(ADAPTION_PROMPT, folder)
    table = []
    for rows in (1, 8):
        steps = (generation(ours, rows, new_tokens), generation(theirs, rows, new_tokens))
        faster, seconds, other = compare(*steps, TIMES_FASTER, minimum, maximum)
        table.append(
            Row(
                measure=f"decoding, batch {rows}: times faster",
                against=ADAPTION_PROMPT,
                **faster.figures(),
                target=TIMES_FASTER,
                facts=rates(rows * new_tokens, seconds, other),
            )
        )
    return table
