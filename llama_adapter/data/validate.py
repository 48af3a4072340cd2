"""``validate-data``: every bad record with its place and reason, the report, and three samples as tokens with their label mask.

Reads the files itself and writes no cache, so it sees exactly what is on the disk now. It takes the configuration of a training
run: the sections it has no use for are accepted and left alone. Nothing is trained and no model is loaded, only the tokenizer.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from llama_adapter.data.config import DataConfig, SourceConfig
from llama_adapter.data.encoding import IGNORE, Encoder
from llama_adapter.data.prepare import Preparer, Row, prepared_rows
from llama_adapter.data.report import BAD, Report
from llama_adapter.data.sources import canonical_rows, source_plans
from llama_adapter.data.templates import load_template
from llama_adapter.errors import UserError

BATCH = 256
"""Records prepared at a time."""


@dataclass(kw_only=True)
class ValidateConfig:
    """What to check: the configuration of a training run does as it is."""

    data: DataConfig
    """The data as a training run would use them."""
    model: dict[str, Any] = field(default_factory=dict)
    """The base model as a training run names it; only ``name_or_path`` is used, to find the tokenizer. Without it the
    records are checked but not the template."""
    samples: int = 3
    """How many records of each split to show as tokens."""
    adapter: dict[str, Any] = field(default_factory=dict)
    """Not used here; accepted so that a training configuration can be checked as it is."""
    training: dict[str, Any] = field(default_factory=dict)
    """Not used here; accepted so that a training configuration can be checked as it is."""


def _tokenizer(name_or_path: str) -> PreTrainedTokenizerBase:
    """Load only the tokenizer of a base model."""
    try:
        return AutoTokenizer.from_pretrained(name_or_path)
    except (OSError, ValueError) as error:
        raise UserError(
            f"no tokenizer can be loaded from {name_or_path!r}: {str(error).splitlines()[0]} "
            "Set model.name_or_path to a folder with tokenizer files."
        ) from error


def masked_tokens(row: Row, tokenizer: PreTrainedTokenizerBase) -> Text:
    """A row as its tokens, those with loss set apart by colour and by brackets (for terminals without colour).

    Args:
        row: a prepared row.
        tokenizer: gives the tokens their names.

    Returns:
        The tokens, separated by ``|``; each run with loss stands between ``[`` and ``]``.
    """
    text, learned = Text(), False
    names = tokenizer.convert_ids_to_tokens(row.input_ids)
    for name, label in zip(names, row.labels, strict=True):
        loss = label != IGNORE
        edge = ("]" if learned else "[") if loss != learned else "|"
        text.append(edge, style="bold yellow" if edge != "|" else "dim")
        text.append(str(name), style="bold green" if loss else "dim")
        learned = loss
    return text.append("]" if learned else "", style="bold yellow")


class _Check:
    """One pass over the sources of a split, printing problems as they are found."""

    def __init__(self, console: Console, preparer: Preparer | None, config: DataConfig) -> None:
        self.console, self.preparer, self.config = console, preparer, config
        self.report, self.reasons = Report(config.max_length), Counter[str]()
        self.faults = 0
        self.samples: list[Row] = []

    def problem(self, place: str, reason: str) -> None:
        """Print one problem on a line of its own."""
        self.faults += 1
        line = Text.assemble((place, "bold"), "  ", (reason, "red"))
        self.console.print(line, soft_wrap=True)

    def source(self, source: SourceConfig) -> None:
        """Check one source."""
        try:
            plans = source_plans(source)
        except UserError as error:
            self.problem(source.path, str(error))
            return
        for batch in _batches(canonical_rows(plans), BATCH):
            if self.preparer is None:
                self._count([Row(row["record_id"], BAD, row["problem"]) for row in batch if row["problem"]])
            else:
                self._count(self.preparer.rows({name: [row[name] for row in batch] for name in batch[0]}))

    def _count(self, rows: list[Row]) -> None:
        """Take prepared rows into the report, printing the bad ones."""
        for row in rows:
            if row.fate == BAD:
                self.problem(row.record_id, row.problem)
            elif row.media and self.config.media == "refuse":
                self.problem(row.record_id, "comes with an image, but data.media is refuse (text-only training)")
            with_loss = sum(label != IGNORE for label in row.labels)
            self.report.add(row.fate, len(row.labels), with_loss, row.left_out, len(row.media))
        missing = max(0, 3 - len(self.samples))
        self.samples += prepared_rows(rows)[:missing]


def _batches(rows: Iterable[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    """Rows in lists of at most ``size``."""
    remaining = iter(rows)
    while batch := list(islice(remaining, size)):
        yield batch
