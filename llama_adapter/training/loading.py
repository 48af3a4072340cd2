"""Batches of unequal row counts for training and evaluation, as a layer between checkpoints and the trainer.

The host's loaders and accelerate's wrapper around them assume batches of one size, cut them apart and fill
them up with repeated rows. Here each rank has its own list of batches out of one plan, so nothing is
repeated, and every rank takes the same number of steps. What is unusual: a rank may be given an empty list
(only where no batch of the epoch can be halved); it then takes a row whose labels are all masked, which adds
nothing to the loss. This layer does not know losses, schedules or models.

Letters: B rows of the batch, N labelled positions.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import zip_longest
from typing import Any

import numpy as np
from accelerate.data_loader import BatchSamplerShard, DataLoaderShard
from datasets import IterableDataset as StreamedDataset
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, Sampler
from transformers import TrainingArguments
from transformers.trainer_utils import has_length

from llama_adapter.data.batch_statistics import BatchStatistics, batch_statistics
from llama_adapter.data.batching import BatchRules, Plan, token_budget
from llama_adapter.data.collator import PackingCollator
from llama_adapter.data.encoding import IGNORE
from llama_adapter.data.epoch_plan import EpochLayout, EpochPlan
from llama_adapter.data.lengths import Lengths, row_characters, row_lengths, row_types, rows_with_media
from llama_adapter.errors import UserError
from llama_adapter.training.batch_choice import splits_batches
from llama_adapter.training.config import TrainingConfig
from llama_adapter.training.packing import check_packing
from llama_adapter.training.saving import CheckpointingTrainer


class RankBatches(Sampler[list[int]]):
    """The batches of one rank, epoch by epoch."""

    batch_size = 1
    """For accelerate, which works out from it how many rows of the last batch were repeated: none."""

    def __init__(
        self, lengths: Lengths, rules: BatchRules, rank: int = 0, layout: EpochLayout | None = None
    ) -> None:
        """Count the batches of an epoch.

        Args:
            lengths: tokens of each row.
            rules: what a batch may hold, and for how many ranks.
            rank: whose batches these are.
            layout: kinds of rows, parts of an epoch; None where all rows may meet.
        """
        self.lengths = lengths
        self.rules = rules
        self.rank = rank
        self.epoch = 0
        self._plan = EpochPlan(lengths, rules, layout or EpochLayout())
        self.count = self._plan.count

    def set_epoch(self, epoch: int) -> None:
        """Choose the plan, counted from 0."""
        self.epoch = epoch

    def plan(self, epoch: int) -> Plan:
        """The batches of all ranks."""
        return self._plan.batches(epoch)

    def statistics(self, epoch: int = 0) -> BatchStatistics:
        """The plan of an epoch in numbers, over all ranks."""
        return batch_statistics(self.lengths, self.plan(epoch), self.rules.packed)

    def __iter__(self) -> Iterator[list[int]]:
        """This rank's batches of the epoch."""
        yield from self.plan(self.epoch)[self.rank :: self.rules.ranks]

    def __len__(self) -> int:
        """Batches of this rank."""
        return self.count // self.rules.ranks


class RankRows(Sampler[list[int]]):
    """One rank's batches of a host's sampler, in which no row occurs twice.

    The host's wrapper repeats rows of the first batches where the last ones do not divide by the ranks;
    here a rank that none is left for gets an empty list.
    """

    batch_size = 1
    """As for ``RankBatches``."""

    def __init__(self, shared: Any, rank: int, ranks: int) -> None:
        """Take turns with other ranks.

        Args:
            shared: the batch sampler of all ranks, in the same order on each.
            rank: whose batches these are.
            ranks: how many take turns.
        """
        self.shared = shared
        self.sampler = shared.sampler  # whose epoch accelerate sets
        self.rank = rank
        self.ranks = ranks

    def set_epoch(self, epoch: int) -> None:
        """Choose the order, counted from 0."""
        if hasattr(self.sampler, "set_epoch"):
            self.sampler.set_epoch(epoch)

    def __iter__(self) -> Iterator[list[int]]:
        """This rank's batches of the epoch."""
        for turn in zip_longest(*[iter(self.shared)] * self.ranks, fillvalue=[]):
            yield list(turn[self.rank])

    def __len__(self) -> int:
        """Batches of this rank."""
        return -(-len(self.shared) // self.ranks)


@dataclass(frozen=True)
class FillingCollator:
    """A collator that takes a row without labels where a rank has no batch."""

    collate: Callable[[list[dict[str, Any]]], dict[str, Any]]
    """Makes a batch of rows."""

    rows: Any
    """The data set."""

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Collate rows, or the stand-in for none, which names no record."""
        if rows:
            return self.collate(rows)
        row = dict(self.rows[0])
        batch = self.collate([row | {"labels": [IGNORE] * len(row["labels"])}])
        return batch | {"record_id": []}


class LoadingTrainer(CheckpointingTrainer):
    """Loads batches by token budget, packed or not, and evaluation batches sorted by length."""

    args: TrainingConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Set up as the host class does, then check that data and model allow the batches asked for.

        Args:
            *args: As for ``transformers.Trainer``.
            **kwargs: Likewise.

        Raises:
            UserError: When the training data have no length, or the model mixes packed records.
        """
        super().__init__(*args, **kwargs)
        self.packing_collator: Callable[[list[dict[str, Any]]], dict[str, Any]] = PackingCollator()
        if self._plans_batches and self.train_dataset is not None:
            _check_has_length(self.train_dataset, self.args)
        if self.args.batching == "packed" and self.train_dataset is not None:
            with self.accelerator.autocast():
                check_packing(self.parts.language_model, self.accelerator.device)

    @cached_property
    def train_batches(self) -> RankBatches | None:
        """The batches of this rank; None where the host makes them, a fixed number of rows each."""
        if self.train_dataset is None or not self._plans_batches:
            return None
        lengths = row_lengths(self.train_dataset)
        if len(lengths) == 0:
            raise UserError(
                f"The training data have {len(lengths)} rows. Use data with at least one usable record."
            )
        rows = self.args.per_device_train_batch_size
        if self.args.batching == "rows":
            lengths, limit = np.ones_like(lengths), BatchRules(rows=rows)  # not sorted by length
        else:
            limit = BatchRules(tokens=token_budget(lengths, rows, self.args.tokens_per_batch))
        rules = replace(
            limit,
            packed=self.args.batching == "packed",
            ranks=self._data_ranks,
            seed=self.args.seed if self.args.data_seed is None else self.args.data_seed,
        )
        return RankBatches(lengths, rules, self._data_rank, self._layout())

    @property
    def _plans_batches(self) -> bool:
        """Whether batches come out of a plan of the whole epoch."""
        args = self.args
        return args.batching != "rows" or self.groups.joint or args.epoch_parts > 1 or args.types != "mixed"

    def _layout(self) -> EpochLayout:
        """How an epoch is laid out in optimiser steps."""
        rows, types = self.train_dataset, self.args.types
        kinds = row_types(rows) if types != "mixed" else None
        if self.groups.joint:
            seen = rows_with_media(rows).astype(int)
            kinds = seen if kinds is None else 2 * kinds + seen
        return EpochLayout(
            kinds=kinds,
            sizes=row_characters(rows) if types == "published" else None,
            accumulation=self.args.gradient_accumulation_steps,
            parts=self.args.epoch_parts,
        )

    def get_train_dataloader(self) -> DataLoader:
        """The host's loader, or this rank's batches by token budget."""
        batches = self.train_batches
        if batches is None:
            return self._without_repeats(super().get_train_dataloader())
        collate = self.packing_collator if batches.rules.packed else self.data_collator
        return self._loader(self.train_dataset, batches, collate)

    def _without_repeats(self, loader: DataLoader) -> DataLoader:
        """The host's loader, where it fills up the last batches of several ranks with rows it had before."""
        shard = getattr(loader, "batch_sampler", None)
        fills_up = not self.args.dataloader_drop_last and not splits_batches(self.args)
        if not fills_up or not isinstance(shard, BatchSamplerShard) or shard.num_processes == 1:
            return loader
        batches = RankRows(shard.batch_sampler, shard.process_index, shard.num_processes)
        collate: Any = loader.collate_fn
        return self._loader(loader.dataset, batches, collate)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """Batches sorted by length, where only their summed losses are wanted; else the host's loader."""
        rows = self._evaluation_rows(eval_dataset)
        if rows is None:
            return super().get_eval_dataloader(eval_dataset)
        limit = BatchRules(rows=self.args.per_device_eval_batch_size)
        if self.train_batches is not None and self.train_batches.rules.tokens is not None:
            limit = BatchRules(tokens=self.train_batches.rules.tokens)
        rules = replace(limit, ranks=self._data_ranks, seed=None)
        return self._loader(rows, RankBatches(row_lengths(rows), rules, self._data_rank), self.data_collator)

    def get_total_train_batch_size(self, args: TrainingArguments) -> int:
        """Rows of one optimiser step over all ranks: an average where batches hold unequal numbers."""
        if self.train_batches is None:
            return super().get_total_train_batch_size(args)
        per_batch = len(self.train_batches.lengths) / (self.train_batches.count * self.args.epoch_parts)
        return max(round(per_batch * self._data_ranks * args.gradient_accumulation_steps), 1)

    def gathered(
        self, nll: Float[Tensor, " B"], tokens: Int[Tensor, " B"]
    ) -> tuple[Float[Tensor, " rows"], Int[Tensor, " rows"]]:
        """Losses and label counts of all ranks, without the rows that a loader repeated.

        Args:
            nll: summed losses of each row of this rank's batch.
            tokens: labels of each.
        """
        loader = self.callback_handler.eval_dataloader
        if isinstance(
            getattr(loader, "batch_sampler", None), RankBatches
        ):  # ranks hold unequal numbers of rows
            nll, tokens = nll.sum()[None], tokens.sum()[None]
        return self.accelerator.gather_for_metrics((nll, tokens))

    @property
    def _data_ranks(self) -> int:
        """Processes that see different data."""
        return self.accelerator.num_processes // self.get_tp_size()

    @property
    def _data_rank(self) -> int:
        """Which of them this is."""
        return self.accelerator.process_index // self.get_tp_size()

    def _evaluation_rows(self, given: Any) -> Any:
        """The rows to evaluate in an order of their own; None where the host must load them."""
        held: Any = self.eval_dataset
        rows = held if given is None else held[given] if isinstance(given, str) else given
        args = self.args
        if self.compute_metrics is not None or args.remove_unused_columns or splits_batches(args):
            return None
        return rows if _has_lengths(rows) else None

    def _loader(
        self,
        rows: Any,
        batches: RankBatches | RankRows,
        collate: Callable[[list[dict[str, Any]]], dict[str, Any]],
    ) -> DataLoader:
        """A loader that accelerate takes as prepared."""
        args = self.args
        return DataLoaderShard(
            rows,
            device=self.accelerator.device if self.accelerator.device_placement else None,
            batch_sampler=batches,
            collate_fn=FillingCollator(collate, rows),
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory,
            persistent_workers=args.dataloader_persistent_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
            multiprocessing_context=args.dataloader_multiprocessing_context,
            _non_blocking=self.accelerator.non_blocking,
        )


def _is_streamed(rows: Any) -> bool:
    return isinstance(rows, IterableDataset | StreamedDataset) or not has_length(rows)


def _has_lengths(rows: Any) -> bool:
    """Whether these are stored rows with tokens and labels."""
    if isinstance(rows, dict) or _is_streamed(rows) or len(rows) == 0:
        return False
    return "input_ids" in rows[0] and "labels" in rows[0]


def _check_has_length(rows: Any, args: TrainingConfig) -> None:
    """Plans need the lengths of all rows.

    Raises:
        UserError: when rows are streamed.
    """
    if _is_streamed(rows):
        raise UserError(
            f"batching={args.batching!r} with epoch_parts={args.epoch_parts} and types={args.types!r}, or "
            "groups for records with and without images, plan an epoch from all rows, and "
            f"{type(rows).__name__} is streamed. Set batching=rows and none of the others, or "
            "streaming=false for the training sources."
        )
