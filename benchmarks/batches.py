"""The same records as random rows, by token budget and packed: time for forward, loss and backward.

Lengths are drawn as instruction data have them: many short records, a long tail, cut off. Each way computes
every record once, so a ratio of times is one of epochs.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.ratios import compare
from benchmarks.results import Row
from benchmarks.subjects import ZERO_INIT, load_adapted
from llama_adapter.data import PaddingCollator
from llama_adapter.data.batch_statistics import batch_statistics, batches_of_rows
from llama_adapter.data.batching import BatchRules, Plan, batches_per_epoch, plan_epoch, token_budget
from llama_adapter.data.collator import PackingCollator
from llama_adapter.data.lengths import Lengths
from llama_adapter.demo.base_model import DEFAULT_FOLDER
from llama_adapter.training.labelled_loss import LabelledLoss
from llama_adapter.training.loss import LabelledPositions
from llama_adapter.training.packing import packed_inputs

RECORDS, ROWS, LONGEST = 32, 4, 512
RANDOM, TOKENS, PACKED = "random rows", "token budget", "packed"


def run(
    minimum: int = 7,
    maximum: int = 25,
    folder: Path = DEFAULT_FOLDER,
    records: int = RECORDS,
    longest: int = LONGEST,
) -> list[Row]:
    """Time the three ways.

    Args:
        minimum: pairs at least.
        maximum: pairs at most.
        folder: the base model.
        records: how many.
        longest: most tokens of a record.
    """
    drawn = np.random.default_rng(0).lognormal(mean=np.log(longest / 4), sigma=0.7, size=records)
    lengths = np.clip(drawn, 4, longest).astype(np.int64)
    model: Any = load_adapted(ZERO_INIT, folder).train()
    plans = _plans(lengths)
    loss = LabelledLoss()
    passes = {name: _passes(model, loss, lengths, plan, name == PACKED) for name, plan in plans.items()}
    table = []
    for mine, other in ((TOKENS, RANDOM), (PACKED, RANDOM), (TOKENS, PACKED)):
        ratio, seconds, others = compare(passes[mine], passes[other], None, minimum, maximum)
        facts = {
            "tokens/s": float(lengths.sum()) / seconds,
            "of the other": float(lengths.sum()) / others,
            "padding": batch_statistics(lengths, plans[mine], mine == PACKED).padding_share,
            "padding of the other": batch_statistics(lengths, plans[other], other == PACKED).padding_share,
        }
        measure = f"{records} records, {mine}: times faster"
        table.append(Row(measure=measure, against=other, **ratio.figures(), target=None, facts=facts))
    return table


def _plans(lengths: Lengths) -> dict[str, Plan]:
    """The records as batches, with the budget that random rows of mean length have."""
    plans = {RANDOM: batches_of_rows(len(lengths), ROWS)}
    for name in (TOKENS, PACKED):
        rules = BatchRules(tokens=token_budget(lengths, ROWS, None), packed=name == PACKED)
        plans[name] = plan_epoch(lengths, rules, 0, batches_per_epoch(lengths, rules))
    return plans


def _passes(
    model: Any, loss_of: LabelledLoss, lengths: Lengths, plan: Plan, packed: bool
) -> Callable[[], None]:
    """Forward, loss and backward of every batch of a plan; the later half of each record carries loss."""
    generator = np.random.default_rng(1)
    rows = []
    for length in lengths.tolist():
        ids = generator.integers(model.config.vocab_size, size=length).tolist()
        rows.append({"input_ids": ids, "labels": [-100] * (length // 2) + ids[length // 2 :]})
    collate = PackingCollator() if packed else PaddingCollator(0)
    batches = [collate([rows[at] for at in batch]) for batch in plan]

    def run_all() -> None:
        for batch in batches:
            passed = {name: value for name, value in batch.items() if name not in ("labels", "record_index")}
            passed.update(packed_inputs(batch))
            positions = LabelledPositions(batch["labels"])
            _, losses = loss_of(model, passed, positions, model)
            losses.mean().backward()
            model.zero_grad()

    return run_all
