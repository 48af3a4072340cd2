"""``validate-data``: every bad record, the report, and samples as tokens with their label mask.

Reads the files itself and writes no cache, so it sees exactly what is on the disk now. It takes the
configuration of a training run: the sections it has no use for are accepted and left alone. Nothing is
trained and no model is loaded, only the tokenizer.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase

from llama_adapter.class_paths import registered_class
from llama_adapter.data.accessory import expand_sources
from llama_adapter.data.batch_statistics import batch_table
from llama_adapter.data.build import judge_sight
from llama_adapter.data.config import DataConfig, SourceConfig
from llama_adapter.data.encoding import IGNORE, Encoder
from llama_adapter.data.images import image_problem
from llama_adapter.data.prepare import Preparer, Row, prepared_rows
from llama_adapter.data.report import Report
from llama_adapter.data.sources import canonical_rows, source_plans
from llama_adapter.data.templates import load_template
from llama_adapter.errors import UserError
from llama_adapter.limits import Natural
from llama_adapter.vocabulary import check_vocabulary

BATCH = 256
"""Records prepared at a time."""

USUAL_ROWS = 8
"""Rows of a batch where the configuration gives no number: the default of transformers."""


@dataclass(kw_only=True)
class ValidateConfig:
    """What to check: the configuration of a training run does as it is."""

    data: DataConfig
    """The data as a training run would use them."""
    base: dict[str, Any] = field(default_factory=dict)
    """The base model as a training run names it: ``name_or_path``, and if need be ``revision`` and
    ``trust_remote_code``, to find its tokenizer."""
    samples: Natural = 3
    """How many records of each split to show as tokens."""
    adapter: dict[str, Any] = field(default_factory=dict)
    """Not used here; accepted so that a training configuration can be checked as it is."""
    vision: dict[str, Any] = field(default_factory=dict)
    """Likewise."""
    conditioner: dict[str, Any] = field(default_factory=dict)
    """Only whether there is one: images are then attached to records, and each file is read."""
    tuning: dict[str, Any] = field(default_factory=dict)
    """Only whether its ``class_path`` is of a model that sees: likewise, and records may have several."""
    training: dict[str, Any] = field(default_factory=dict)
    """Only ``per_device_train_batch_size`` and ``tokens_per_batch`` are used here, to show what batches of
    the training data would hold."""


def _tokenizer(base: dict[str, Any]) -> PreTrainedTokenizerBase:
    """Load only the tokenizer of a base model, and see that the embeddings have a row for every token."""
    name = base.get("name_or_path")
    if not isinstance(name, str):
        raise UserError(f"base is {base!r}. Set base.name_or_path, to find the tokenizer.")
    options = {key: base[key] for key in ("revision", "trust_remote_code") if base.get(key)}
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(name, **options)
        if _has_weights(name):
            check_vocabulary(tokenizer, AutoConfig.from_pretrained(name, **options))
    except UserError:
        raise
    except (OSError, ValueError, ImportError) as error:
        raise UserError(
            f"no tokenizer can be loaded from {name!r}: {str(error).splitlines()[0]} "
            "Set base.name_or_path to a folder with tokenizer files."
        ) from error
    return tokenizer


def _has_weights(name: str) -> bool:
    """Whether there are embeddings at all; a folder with the files of a tokenizer is enough to check data."""
    folder = Path(name)
    return not folder.is_dir() or any(any(folder.glob(f"*{suffix}")) for suffix in (".safetensors", ".bin"))


def _tuned_to_see(tuning: dict[str, Any]) -> bool:
    """Whether a run's ``tuning`` is of a kind that is shown images.

    Raises:
        UserError: there is no such class.
    """
    path = tuning.get("class_path")
    return path is not None and bool(
        getattr(registered_class(path, (object,), "tuning.class_path"), "sees_images", False)
    )


def masked_tokens(row: Row, tokenizer: PreTrainedTokenizerBase) -> Text:
    """A row as its tokens, those with loss set apart by colour and, for plain terminals, by brackets.

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


@dataclass
class Check:
    """What one pass over the sources of a split found."""

    preparer: Preparer
    """Prepares records as training would."""
    media: str
    """What is to happen to records with images, as ``DataConfig.media`` says it."""
    wanted: int
    """How many samples to keep."""
    report: Report
    """What became of the records."""
    several_images: bool = False
    """Whether a record may have more than one."""
    samples: list[Row] = field(default_factory=list)
    """The first rows that are used."""
    problems: int = 0
    """How many problems were found."""

    def run(self, source: SourceConfig) -> Iterator[tuple[str, str]]:
        """Check one source.

        Args:
            source: file, folder or hub data set.

        Yields:
            Place and reason of every problem, in the order of the file.
        """
        try:
            plans = source_plans(source, text_alone=self.media == "ignore")
        except UserError as error:
            self.problems += 1
            yield source.path, str(error)
            return
        records = iter(canonical_rows(plans))
        while batch := list(islice(records, BATCH)):
            for row in batch:
                self.report.add_unread(row["unread"])
            rows = self.preparer.rows({name: [row[name] for row in batch] for name in batch[0]})
            self.samples += prepared_rows(rows)[: self.wanted - len(self.samples)]
            for one in rows:
                yield from self._judge(one)

    def _judge(self, row: Row) -> Iterator[tuple[str, str]]:
        """Count one row and say what is wrong with it."""
        with_loss = sum(label != IGNORE for label in row.labels)
        length, media = len(row.labels), len(row.media)
        self.report.add(row.fate, length, with_loss, row.left_out, media, row.rewritten, row.part)
        if row.part:
            return
        reason = row.problem
        if not reason and row.media and self.media == "refuse":
            reason = "it comes with an image, but data.media is 'refuse' (text-only training)"
        if not reason and row.media and self.media == "attach":
            reason = image_problem(row.media, decode=True, several=self.several_images)
        if reason:
            self.problems += 1
            yield row.record_id, reason


def _check_split(name: str, sources: list[SourceConfig], check: Check, console: Console) -> None:
    """Check the sources of one split, printing problems as they are found and the report at the end."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}: {task.completed} problems"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        for source in sources:
            task = progress.add_task(f"checking {source.path}", total=None)
            for place, reason in check.run(source):
                progress.advance(task)
                console.print(Text.assemble((place, "bold"), "  ", (reason, "red")), soft_wrap=True)
            progress.remove_task(task)
    try:
        console.print(judge_sight(check.report, check.media, name), markup=False)
    except UserError as error:
        check.problems += 1
        console.print(Text(str(error), "red"), soft_wrap=True)
    console.print(check.report.table(f"{name} data"))


def _show_batches(report: Report, training: dict[str, Any], console: Console) -> None:
    """Print what batches of the training data would hold, however they are made."""
    rows = training.get("per_device_train_batch_size", USUAL_ROWS)
    tokens = training.get("tokens_per_batch")
    if report.lengths and isinstance(rows, int) and isinstance(tokens, int | None):
        console.print(batch_table(np.array(report.lengths), report.limit, rows, tokens))


def _show_samples(samples: list[Row], tokenizer: PreTrainedTokenizerBase, console: Console) -> None:
    """Print samples as tokens with their label mask."""
    for row in samples:
        with_loss = sum(label != IGNORE for label in row.labels)
        console.print()
        console.print(
            f"{row.record_id}: {len(row.labels)} tokens, {with_loss} with loss, in brackets", markup=False
        )
        console.print(masked_tokens(row, tokenizer), soft_wrap=True)


def validate_data(config: ValidateConfig) -> int:
    """Check the data of a run and show what the model will learn.

    Args:
        config: the data, and the base model whose tokenizer to use.

    Returns:
        0 when every record can be used, 2 when there are problems.

    Raises:
        UserError: there is no tokenizer, or no such template.
    """
    console = Console()
    tokenizer = _tokenizer(config.base)
    data = config.data
    tuned_to_see = _tuned_to_see(config.tuning)
    if (config.conditioner or tuned_to_see) and data.media == "refuse":
        data = replace(data, media="attach")
    preparer = Preparer(load_template(data.template, tokenizer), Encoder(tokenizer), data)
    problems = 0
    for split, listed in (("train", data.train), ("evaluation", data.evaluation)):
        sources = expand_sources(listed)
        if not sources:
            continue
        report = Report(data.max_length, sources=len(sources))
        check = Check(preparer, data.media, config.samples, report, tuned_to_see)
        _check_split(split, sources, check, console)
        if split == "train":
            _show_batches(check.report, config.training, console)
        _show_samples(check.samples, tokenizer, console)
        problems += check.problems
    verdict = "every record can be used" if not problems else f"{problems} problems, listed above"
    console.print(f"\n{verdict}", style="bold red" if problems else "bold green")
    return 2 if problems else 0
