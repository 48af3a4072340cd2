"""What an epoch feeds the model: the lengths of its records, its batches, and the padding between them.

Lengths come from the data, prepared as for training (and kept in the same cache, so nothing is done twice),
or from a stated mean where data are not at hand. Batches are those of the trainer: random rows, rows of like
length up to a number of tokens, or packed ones. What is unusual: the size of a batch is one number, in rows
or in tokens as ``training.batching`` counts. It knows no model and no device.

Letters: B rows of a batch, T its length.
"""

from dataclasses import dataclass
from typing import Any

import datasets
import numpy
import pyarrow.compute as arrow
from jaxtyping import Float, Int
from numpy import ndarray

from llama_adapter.data import DataConfig, build_datasets
from llama_adapter.data.batch_statistics import batches_of_rows
from llama_adapter.data.batching import BatchRules, Plan, batches_per_epoch, plan_epoch, token_budget
from llama_adapter.data.encoding import IGNORE
from llama_adapter.data.lengths import media_tokens, row_lengths, rows_with_media
from llama_adapter.errors import UserError
from llama_adapter.models import BaseModelConfig, load_tokenizer
from llama_adapter.planning.step import Row
from llama_adapter.training.batch_choice import Batching
from llama_adapter.training.tuning import TuningConfig


@dataclass(frozen=True, kw_only=True)
class TokenStatistics:
    """Lengths of the records in tokens."""

    records: int
    """Number of records of an epoch."""
    mean: float
    median: float
    p90: float
    p99: float
    longest: int
    labelled_share: float
    """Share of the tokens that carry loss."""
    measured: bool
    """Whether they come from the data; otherwise they were stated, and every record has the mean."""


@dataclass(frozen=True, kw_only=True)
class EpochLoad:
    """Sums over all batches of an epoch, all devices together."""

    batches: int
    """Micro-batches of one device."""
    optimizer_steps: int
    """Steps of the optimizer."""
    tokens: int
    """Tokens without padding."""
    labelled: int
    """Tokens that carry loss."""
    padded: int
    """Tokens with padding: the sum of B T."""
    squares: float
    """The sum of B T T, by which attention grows."""
    records: int
    """All records."""
    images: float = 0.0
    """Images of all records."""
    seeing_records: int = 0
    """Records of batches in which one has an image."""
    blind_rows: int = 0
    """Rows of the other batches; a pack is one row."""

    @property
    def padding_share(self) -> float:
        """Share of padding in all tokens."""
        return 1 - self.tokens / self.padded


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The records of an epoch."""

    lengths: Int[ndarray, " records"]
    """Tokens of each record."""
    labelled: Int[ndarray, " records"]
    """How many of them carry loss."""
    longest: int
    """Length that the heaviest batch is planned with."""
    batching: Batching = "rows"
    """How rows become batches."""
    padding: float = 0.0
    """Stated share of padding; only where lengths are stated too."""
    measured: bool = True
    """Whether lengths come from the data."""
    images_of: Float[ndarray, " records"] | None = None
    """Images of each record; None for none. One of which a part is skipped counts as the rest of it."""
    apart: bool = False
    """Whether records with and without an image are in batches of their own, as joint training has them."""

    @property
    def images(self) -> float:
        """Images of all records."""
        return 0.0 if self.images_of is None else float(self.images_of.sum())

    @property
    def statistics(self) -> TokenStatistics:
        """The lengths in a few numbers."""
        median, p90, p99 = (float(numpy.percentile(self.lengths, share)) for share in (50, 90, 99))
        return TokenStatistics(
            records=len(self.lengths),
            mean=float(self.lengths.mean()),
            median=median,
            p90=p90,
            p99=p99,
            longest=self.longest,
            labelled_share=float(self.labelled.sum() / self.lengths.sum()),
            measured=self.measured,
        )

    @property
    def smallest(self) -> int:
        """The smallest size of a batch that holds the longest record."""
        return 1 if self.batching == "rows" else self.longest

    def size(self, training: Any) -> int:
        """The size of a batch that a ``TrainingConfig`` asks for."""
        rows = training.per_device_train_batch_size
        if self.batching == "rows":
            return rows
        return max(self.longest, token_budget(self.lengths, rows, training.tokens_per_batch))

    def heaviest(self, size: int) -> list[Row]:
        """The batch of that size that takes most memory: the longest records there are, or a full pack."""
        share = float(self.labelled.sum() / self.lengths.sum())
        if self.batching == "packed":
            records = max(1, round(size / float(self.lengths.mean())))
            return [Row(size, max(1, round(share * size)), records, self.images > 0)]
        count = size if self.batching == "rows" else max(1, size // self.longest)
        if not self.measured:
            labelled = max(1, round(share * self.longest))
            return [Row(self.longest, labelled, has_image=self.images > 0)] * count
        order = numpy.argsort(-self.lengths, kind="stable")
        chosen = [int(order[index % len(order)]) for index in range(count)]
        return [
            Row(int(self.lengths[index]), int(self.labelled[index]), has_image=self.images > 0)
            for index in chosen
        ]

    def epoch(self, size: int, devices: int, accumulation: int, seed: int = 0) -> EpochLoad:
        """The batches of an epoch.

        Args:
            size: of a batch of one device.
            devices: ranks that share the records.
            accumulation: micro-batches of an optimizer step.
            seed: of the shuffling.
        """
        packed = self.batching == "packed"
        plan = [numpy.array(batch) for batch in self._plan(size, devices, seed) if len(batch)]
        held = [self.lengths[batch] for batch in plan]
        sees = [self.images_of is not None and bool(self.images_of[batch].any()) for batch in plan]
        counts = numpy.array([1 if packed else len(part) for part in held])
        widths = numpy.array([part.sum() if packed else part.max() for part in held]) / (1 - self.padding)
        batches = -(-len(held) // devices)
        return EpochLoad(
            batches=batches,
            optimizer_steps=-(-batches // accumulation),
            tokens=int(self.lengths.sum()),
            labelled=int(self.labelled.sum()),
            padded=round(float((counts * widths).sum())),
            squares=float((counts * widths**2).sum()),
            records=len(self.lengths),
            images=self.images,
            seeing_records=sum(len(part) for part, seeing in zip(held, sees, strict=True) if seeing),
            blind_rows=sum(int(count) for count, seeing in zip(counts, sees, strict=True) if not seeing),
        )

    def _plan(self, size: int, devices: int, seed: int) -> Plan:
        """Batches of all devices, as numbers of records."""
        if not self.apart or self.images_of is None:
            return self._batches(numpy.arange(len(self.lengths)), size, devices, seed)
        kinds = (numpy.flatnonzero(self.images_of), numpy.flatnonzero(self.images_of == 0))
        return [batch for kind in kinds if len(kind) for batch in self._batches(kind, size, devices, seed)]

    def _batches(self, records: Int[ndarray, " some"], size: int, devices: int, seed: int) -> Plan:
        """Batches of these records."""
        if self.batching == "rows":
            plan = batches_of_rows(len(records), size, seed)
        else:
            lengths = self.lengths[records]
            rules = BatchRules(tokens=size, packed=self.batching == "packed", ranks=devices, seed=seed)
            plan = plan_epoch(lengths, rules, 0, batches_per_epoch(lengths, rules))
        return [records[numpy.array(batch, dtype=int)].tolist() for batch in plan]


def measured_workload(
    data: DataConfig,
    base: BaseModelConfig,
    batching: Batching = "rows",
    apart: bool = False,
    tuning: TuningConfig | None = None,
    image_tokens: int = 0,
) -> Workload:
    """The records of the training data, tokenised as for training.

    Args:
        data: of the run.
        base: whose tokenizer it is.
        batching: how rows become batches.
        apart: whether records with and without an image are kept apart.
        tuning: of a model that trains as a whole.
        image_tokens: of a whole image, where the model sees images as tokens of its rows; images are then
            counted by their tokens.

    Raises:
        UserError: the data or the tokenizer cannot be read, or the data are streamed and have no length.
    """
    streamed = [source.path for source in data.train if source.streaming]
    if streamed:
        raise UserError(
            f"The data {streamed} are streamed and have no length. "
            "Use --tokens-per-record and --records to state what an epoch is."
        )
    only_training = DataConfig(**{**vars(data), "evaluation": []})
    tokenizer = load_tokenizer(base)
    if tuning is None:
        rows = build_datasets(only_training, tokenizer).train
    else:
        rows = tuning.prepared(base, only_training, tokenizer).train
    return Workload(
        lengths=(lengths := row_lengths(rows)),
        labelled=_labelled_counts(rows),
        longest=int(lengths.max()),
        batching=batching,
        images_of=media_tokens(rows) / image_tokens if image_tokens else rows_with_media(rows).astype(float),
        apart=apart,
    )


def _labelled_counts(rows: datasets.Dataset) -> Int[ndarray, " records"]:
    """Tokens with loss of each row, read off the table."""
    found = list[ndarray]()
    for part in rows.select_columns(["labels"]).with_format("arrow").iter(batch_size=10_000):
        column = part["labels"].combine_chunks()
        owners = arrow.list_parent_indices(column).to_numpy()
        with_loss = arrow.list_flatten(column).to_numpy() != IGNORE
        found.append(numpy.bincount(owners[with_loss], minlength=len(column)))
    return numpy.concatenate(found)


def stated_workload(
    tokens: float,
    records: int,
    longest: int,
    labelled_share: float = 1.0,
    padding: float = 0.0,
    batching: Batching = "rows",
    images: float = 0.0,
    apart: bool = False,
) -> Workload:
    """Records of which only a mean length is known.

    Args:
        tokens: mean length of a record.
        records: how many there are.
        longest: the length that the heaviest batch has in every row.
        labelled_share: share of the tokens that carry loss.
        padding: share of padding in a batch.
        batching: how rows become batches.
        images: share of records with an image; they are spread evenly.
        apart: whether records with and without an image are kept apart.

    Raises:
        UserError: a number is out of its range.
    """
    if tokens < 2 or records < 1:
        raise UserError(
            f"tokens_per_record={tokens:g} and records={records} describe no data. "
            "Use at least 2 tokens and 1 record."
        )
    if not 0 < labelled_share <= 1 or not 0 <= padding < 1:
        raise UserError(
            f"labelled_share={labelled_share:g} and padding_share={padding:g} are not both shares. "
            "Use numbers between 0 and 1."
        )
    lengths = _spread(tokens, records)
    labelled = numpy.maximum(1, numpy.round(lengths * labelled_share)).astype(int)
    return Workload(
        lengths=lengths,
        labelled=labelled,
        longest=max(longest, int(lengths.max())),
        padding=padding,
        measured=False,
        batching=batching,
        images_of=_spread(images, records).astype(float),
        apart=apart,
    )


def _spread(mean: float, count: int) -> Int[ndarray, " count"]:
    """Whole numbers with this mean; rounding at random would need a seed, spreading evenly keeps the sum."""
    ends = numpy.floor(mean * numpy.arange(1, count + 1) + 1e-9).astype(int)
    return numpy.diff(ends, prepend=0)
