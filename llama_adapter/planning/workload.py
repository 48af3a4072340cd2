"""What an epoch feeds the model: the lengths of its records, its batches, and the padding between them.

Lengths come from the data, prepared as for training (and kept in the same cache, so nothing is done twice),
or from a stated mean where data are not at hand. Batches are made as the trainer makes them: shuffled rows,
padded to the longest of each batch. It knows no model and no device.

Letters: B rows of a batch, T its length.
"""

from dataclasses import dataclass

import numpy
from jaxtyping import Int
from numpy import ndarray

from llama_adapter.data import DataConfig, build_datasets
from llama_adapter.data.encoding import IGNORE
from llama_adapter.errors import UserError
from llama_adapter.models import BaseModelConfig, load_tokenizer
from llama_adapter.planning.step import Row


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
    padding: float = 0.0
    """Stated share of padding; only where lengths are stated too."""
    measured: bool = True
    """Whether lengths come from the data."""

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

    def heaviest(self, count: int) -> list[Row]:
        """The batch of ``count`` rows that takes most memory: the longest records there are."""
        order = numpy.argsort(-self.lengths, kind="stable")
        chosen = [int(order[index % len(order)]) for index in range(count)]
        if self.measured:
            return [Row(int(self.lengths[index]), int(self.labelled[index])) for index in chosen]
        share = self.labelled.sum() / self.lengths.sum()
        return [Row(self.longest, max(1, round(float(share) * self.longest)))] * count

    def epoch(self, rows: int, devices: int, accumulation: int, seed: int = 0) -> EpochLoad:
        """The batches of an epoch.

        Args:
            rows: B of one device.
            devices: ranks that share the records.
            accumulation: micro-batches of an optimizer step.
            seed: of the shuffling.
        """
        order = numpy.random.default_rng(seed).permutation(len(self.lengths))
        sizes = [len(part) for part in _parts(order, rows)]
        widths = numpy.array([self.lengths[part].max() for part in _parts(order, rows)])
        widths = widths / (1 - self.padding)
        batches = -(-len(sizes) // devices)
        return EpochLoad(
            batches=batches,
            optimizer_steps=-(-batches // accumulation),
            tokens=int(self.lengths.sum()),
            labelled=int(self.labelled.sum()),
            padded=int(round(float((numpy.array(sizes) * widths).sum()))),
            squares=float((numpy.array(sizes) * widths**2).sum()),
        )


def _parts(order: Int[ndarray, " records"], rows: int) -> list[Int[ndarray, " rows"]]:
    return [order[start : start + rows] for start in range(0, len(order), rows)]


def measured_workload(data: DataConfig, base: BaseModelConfig) -> Workload:
    """The records of the training data, tokenised as for training.

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
    rows = build_datasets(only_training, load_tokenizer(base)).train
    lengths, labelled = list[int](), list[int]()
    for batch in rows.select_columns(["labels"]).with_format("arrow").iter(batch_size=1024):
        for labels in batch["labels"].to_pylist():
            lengths.append(len(labels))
            labelled.append(len(labels) - labels.count(IGNORE))
    return Workload(lengths=numpy.array(lengths), labelled=numpy.array(labelled), longest=max(lengths))


def stated_workload(
    tokens: float, records: int, longest: int, labelled_share: float = 1.0, padding: float = 0.0
) -> Workload:
    """Records of which only a mean length is known.

    Args:
        tokens: mean length of a record.
        records: how many there are.
        longest: the length that the heaviest batch has in every row.
        labelled_share: share of the tokens that carry loss.
        padding: share of padding in a batch.

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
    # rounding at random would need a seed; spreading the fraction evenly keeps the sum
    ends = numpy.floor(tokens * numpy.arange(1, records + 1)).astype(int)
    lengths = numpy.diff(ends, prepend=0)
    labelled = numpy.maximum(1, numpy.round(lengths * labelled_share)).astype(int)
    return Workload(
        lengths=lengths,
        labelled=labelled,
        longest=max(longest, int(lengths.max())),
        padding=padding,
        measured=False,
    )
