"""A plan of batches in numbers: rows, tokens, and the share of them that is padding.

It counts, and puts the ways to make batches side by side; it decides nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.table import Table

from llama_adapter.data.batching import BatchRules, Plan, batches_per_epoch, plan_epoch, token_budget
from llama_adapter.data.lengths import Lengths


@dataclass(frozen=True, kw_only=True)
class BatchStatistics:
    """A plan in numbers."""

    batches: int
    """Batches of the epoch, over all ranks."""
    rows: int
    """Rows of all batches."""
    tokens: int
    """Tokens of all rows."""
    padding_share: float
    """Padding in all tokens of the batches, padding included: from 0 to 1."""
    rows_per_batch: float
    """Mean number of rows."""
    largest: int
    """Tokens of the largest batch, padding included."""
    mean_length: float
    """Tokens per row."""
    median_length: int
    """Half of the rows are at most this long."""
    p90_length: int
    """Nine of ten rows are at most this long."""
    p99_length: int
    """99 of 100 rows are at most this long."""
    longest: int
    """Tokens of the longest row."""


def batch_statistics(
    lengths: Lengths, plan: Sequence[Sequence[int]], packed: bool = False, padded_to: int | None = None
) -> BatchStatistics:
    """Measure a plan.

    Args:
        lengths: tokens of each row.
        plan: batches of row numbers.
        packed: whether rows stand one after the other, so that nothing is padded.
        padded_to: length to which every row is padded; None pads to the longest of the batch.
    """
    held = [lengths[np.array(batch, dtype=np.int64)] for batch in plan if len(batch)]
    sizes = [int(part.sum()) if packed else len(part) * (padded_to or int(part.max())) for part in held]
    rows = np.concatenate(held) if held else np.zeros(1, dtype=np.int64)
    count, tokens = sum(len(part) for part in held), int(rows.sum())
    p50, p90, p99 = (int(value) for value in np.quantile(rows, [0.5, 0.9, 0.99], method="inverted_cdf"))
    return BatchStatistics(
        batches=len(plan),
        rows=count,
        tokens=tokens,
        padding_share=1 - tokens / sum(sizes) if sum(sizes) else 0.0,
        rows_per_batch=count / max(len(plan), 1),
        largest=max(sizes, default=0),
        mean_length=tokens / max(count, 1),
        median_length=p50,
        p90_length=p90,
        p99_length=p99,
        longest=int(rows.max()),
    )


def batches_of_rows(rows: int, size: int, seed: int = 0) -> Plan:
    """Random batches of a fixed number of rows, as trainers make them by default, to compare plans with.

    Args:
        rows: number of rows of the data.
        size: rows of a batch.
        seed: of the order.
    """
    order = np.random.default_rng(seed).permutation(rows).tolist()
    return [order[at : at + size] for at in range(0, rows, size)]


def batch_table(lengths: Lengths, max_length: int, rows: int, tokens: int | None) -> Table:
    """What the ways to make batches would cost for these rows, in one epoch of one process.

    Args:
        lengths: tokens of each row; at least one.
        max_length: length to which fixed-size recipes pad.
        rows: rows of a batch where rows are counted.
        tokens: tokens of a batch where tokens are counted; None takes what ``token_budget`` does.
    """
    budget = token_budget(lengths, rows, tokens)
    random = batches_of_rows(len(lengths), rows)
    found = {
        f"{rows} rows padded to {max_length}": batch_statistics(lengths, random, padded_to=max_length),
        f"rows: {rows} at random": batch_statistics(lengths, random),
    }
    for name, packed in (("tokens", False), ("packed", True)):
        rules = BatchRules(tokens=budget, packed=packed)
        plan = plan_epoch(lengths, rules, 0, batches_per_epoch(lengths, rules))
        found[f"{name}: at most {budget:,} tokens"] = batch_statistics(lengths, plan, packed)
    table = Table(title="batches of an epoch, by training.batching")
    for column in ("", "batches", "rows per batch", "largest, tokens", "padding"):
        table.add_column(column, justify="right" if column else "left")
    for name, one in found.items():
        numbers = (
            f"{one.batches:,}",
            f"{one.rows_per_batch:.1f}",
            f"{one.largest:,}",
            f"{one.padding_share:.1%}",
        )
        table.add_row(name, *numbers)
    return table
