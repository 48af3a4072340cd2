"""Builds the training and evaluation data of a run: records, tokens, mixture, report.

Two cached tables per source, both memory-mapped: the canonical records (keyed by the files) and the rows
(keyed by the records, the template, the tokenizer and the length). A lock makes the other processes of a
machine wait for the first one instead of repeating its work. Streamed sources go through the same functions
without any table. Batches and devices are the trainer's.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import datasets
from filelock import FileLock
from rich.console import Group
from transformers import PreTrainedTokenizerBase

from llama_adapter.data.accessory import expand_sources
from llama_adapter.data.config import DataConfig, SourceConfig
from llama_adapter.data.encoding import IGNORE, Encoder
from llama_adapter.data.images import image_problem
from llama_adapter.data.prepare import PASSED_ON, ROW_FEATURES, Preparer
from llama_adapter.data.report import BAD, KEPT, TRUNCATED, Report, said_unread
from llama_adapter.data.sources import RECORD_FEATURES, load_records, source_plans, stream_records
from llama_adapter.data.templates import load_template
from llama_adapter.errors import UserError

TYPE_FEATURES = {name: RECORD_FEATURES[name] for name in PASSED_ON}
"""What a row keeps of its record."""

log = logging.getLogger(__name__)

SHOWN_PROBLEMS = 5
"""How many bad records an error message lists."""

Data: TypeAlias = datasets.Dataset | datasets.IterableDataset
"""Stored or streamed rows."""


@dataclass
class DataReport:
    """What became of the records, split by split."""

    train: Report
    """Of the training sources together, before any mixture repeats or leaves out rows."""
    evaluation: Report
    """Of the evaluation sources together."""

    def __rich__(self) -> Group:
        """The figures of both splits, for ``console.print``."""
        splits = (("training data", self.train), ("evaluation data", self.evaluation))
        return Group(*(part.table(name) for name, part in splits if part.sources))


@dataclass
class Datasets:
    """What ``build_datasets`` returns."""

    train: Data
    """Rows with ``input_ids``, ``labels``, ``record_id`` (and ``media`` when they are kept)."""
    evaluation: Data | None
    """The same for evaluation; None without evaluation sources."""
    report: DataReport
    """What became of the records."""


@dataclass(frozen=True)
class MediaRule:
    """How a model takes the images that belong to a record."""

    several: bool = False
    """Whether it sees more than one."""
    token_id: int | None = None
    """What stands for an image in the text; None for a model that takes images beside it."""


@dataclass
class _Source:
    """One source in the making."""

    config: SourceConfig
    preparer: Preparer
    data: DataConfig
    media: MediaRule
    report: Report = field(init=False)

    def __post_init__(self) -> None:
        self.report = Report(self.data.max_length, sources=1, streamed=self.config.streaming)

    def rows(self) -> Data:
        """The rows of this source that are used."""
        plans = source_plans(self.config, text_alone=self.data.media == "ignore")
        return self._streamed(plans) if self.config.streaming else self._stored(plans)

    def _columns(self) -> list[str]:
        """The columns that training sees."""
        media = ["media"] if self.data.attaches_media else []
        return ["input_ids", "labels", "record_id", *media, *(TYPE_FEATURES if self.data.has_types else [])]

    def _stored(self, plans: list[str]) -> datasets.Dataset:
        """Read and prepare into memory-mapped tables, or open the ones that exist."""
        records = load_records(plans, self.data.cache_dir)
        self._judge(_problems(records, lambda row: bool(row["problem"]), ("record_id", "problem")))
        for row in _iterate(records.select_columns(["unread"])):
            self.report.add_unread(row["unread"])
        key = hashlib.sha256(json.dumps([plans, self.preparer.identity]).encode()).hexdigest()[:16]
        folder = Path(records.cache_files[0]["filename"]).parent
        with FileLock(folder / f"rows-{key}.lock"):
            rows = records.map(
                self.preparer,
                batched=True,
                batch_size=256,
                remove_columns=records.column_names,
                features=datasets.Features({**ROW_FEATURES, **TYPE_FEATURES}),
                new_fingerprint=key,
                cache_file_name=str(folder / f"rows-{key}.arrow"),
                desc=f"Tokenizing {Path(self.config.path).name}",
            )
        used = self._count(rows)
        if not used:
            raise UserError(
                f"no record of {self.config.path!r} can be used ({self.report.summary()}). "
                "Raise max_length, or run `llama-adapter validate-data` on the configuration to see why."
            )
        rows = rows.select_columns(self._columns())
        return rows if len(used) == len(rows) else rows.select(used)

    def _count(self, rows: datasets.Dataset) -> list[int]:
        """Fill the report; returns the indices of the rows that are used."""
        self._judge(_problems(rows, lambda row: row["fate"] == BAD, ("record_id", "problem", "fate")))
        used, imageless = [], list[tuple[str, str]]()
        small = rows.select_columns(["record_id", "labels", "fate", "left_out", "media", "rewritten", "part"])
        for index, row in enumerate(_iterate(small)):
            labels, fate, part = row["labels"], row["fate"], row["part"]
            with_loss = len(labels) - labels.count(IGNORE)
            if fate in (KEPT, TRUNCATED) and (problem := self._image_problem(row)):
                fate = BAD
                imageless += [(row["record_id"], problem)] if part == 0 else []
            media, rewritten = len(row["media"]), row["rewritten"]
            self.report.add(fate, len(labels), with_loss, row["left_out"], media, rewritten, part)
            if fate in (KEPT, TRUNCATED):
                used.append(index)
        self._judge(imageless)
        self._judge_media(self.report.with_media)
        return used

    def _image_problem(self, row: dict[str, Any]) -> str:
        """What stands against a row's image, where images are attached to records."""
        if self.data.media != "attach":
            return ""
        return image_problem(row["media"], several=self.media.several)

    def _judge(self, problems: list[tuple[str, str]]) -> None:
        """Refuse bad records unless they are to be skipped."""
        if not problems:
            return
        if self.data.bad_records == "skip":
            log.warning(
                "%s: skipping %d bad records, the first: %s: %s",
                self.config.path,
                len(problems),
                *problems[0],
            )
            return
        listed = "".join(f"\n  {place}: {reason}" for place, reason in problems[:SHOWN_PROBLEMS])
        more = f"\n  ... and {len(problems) - SHOWN_PROBLEMS} more" if len(problems) > SHOWN_PROBLEMS else ""
        raise UserError(
            f"{len(problems)} records of {self.config.path!r} cannot be used:{listed}{more}\nRepair them "
            "(`llama-adapter validate-data` lists all of them), or set data.bad_records to skip."
        )

    def _judge_media(self, count: int) -> None:
        """Refuse records with media in text-only training, or say that they are ignored."""
        if count and self.data.media == "refuse":
            raise UserError(
                f"{count} records of {self.config.path!r} come with images, but this trains on text only. "
                "Set data.media to ignore to train on their text without the images."
            )
        if count and self.data.media == "ignore":
            log.warning(
                "%s: images are ignored, only the text is used (at least %d records)", self.config.path, count
            )

    def _streamed(self, plans: list[str]) -> datasets.IterableDataset:
        """Prepare while reading."""
        rows = (
            stream_records(plans)
            .filter(self._name_unread, input_columns=["unread"])
            .map(
                self.preparer,
                batched=True,
                batch_size=256,
                remove_columns=list(RECORD_FEATURES),
                features=datasets.Features({**ROW_FEATURES, **TYPE_FEATURES}),
            )
        )
        return rows.filter(self._usable).select_columns(self._columns())

    def _name_unread(self, keys: list[str]) -> bool:
        """Say once of each key that it is not read; keeps every record."""
        if new := [key for key in keys if key not in self.report.unread]:
            log.warning("%s: not read: %s", self.config.path, ", ".join(new))
        self.report.add_unread(keys)
        return True

    def _usable(self, row: dict[str, Any]) -> bool:
        """Judge one streamed row."""
        problem = row["problem"] or self._image_problem(row)
        if problem:
            self._judge([(row["record_id"], problem)])
            return False
        if row["media"] and (self.data.media == "refuse" or not self.report.with_media):  # warn only once
            self.report.with_media += 1
            self._judge_media(1)
        return row["fate"] in (KEPT, TRUNCATED)


def _iterate(table: datasets.Dataset) -> Iterator[dict[str, Any]]:
    """Rows of a table, read batch by batch."""
    for batch in table.with_format("arrow").iter(batch_size=1024):
        yield from batch.to_pylist()


def _problems(
    table: datasets.Dataset, bad: Callable[[dict[str, Any]], bool], columns: tuple[str, ...]
) -> list[tuple[str, str]]:
    """Place and reason of every bad row of a table."""
    rows = _iterate(table.select_columns(list(columns)))
    return [(row["record_id"], row["problem"]) for row in rows if bad(row)]


def _mixture(parts: list[Data], config: DataConfig) -> Data:
    """Put the training sources together."""
    weights = [source.weight for source in config.train if source.weight is not None]
    if weights and len(parts) > 1:
        data = datasets.interleave_datasets(
            parts,
            [weight / sum(weights) for weight in weights],
            seed=config.seed,
            stopping_strategy=config.stopping,
        )
    else:
        data = parts[0] if len(parts) == 1 else datasets.concatenate_datasets(parts)
    if isinstance(data, datasets.IterableDataset) and config.shuffle_buffer:
        data = data.shuffle(seed=config.seed, buffer_size=config.shuffle_buffer)
    return data


def _split(
    sources: list[SourceConfig], preparer: Preparer, config: DataConfig, media: MediaRule, name: str
) -> tuple[list[Data], Report]:
    """Prepare the sources of one split."""
    parts, report = list[Data](), Report(config.max_length)
    for source in (_Source(one, preparer, config, media) for one in sources):
        parts.append(source.rows())
        report.merge(source.report)
    if parts:
        log.info("%s data: %s", name, report.summary())
        if said := judge_sight(report, config.media, name):
            log.warning(said)
    return parts, report


def judge_sight(report: Report, media: str, name: str) -> str:
    """Refuse data without a single image for a model that sees.

    Args:
        report: of one split, complete.
        media: ``DataConfig.media``; a model that sees attaches.
        name: of the split.

    Returns:
        How many records name no image; empty where all do, or none must.

    Raises:
        UserError: no record has an image.
    """
    read = sum(report.fates.values())
    if media != "attach" or report.streamed or not report.sources:
        return ""
    if not report.with_media:
        raise UserError(
            f"no record of the {name} data names an image ({read} records read), but the model is to see. "
            "Say in which column images are (columns: {image: ...}) or how they are called (media_name)"
            f"{'; ' * bool(report.unread)}{said_unread(report.unread)}."
        )
    lack = read - report.with_media
    return f"{name} data: {lack} of {read} records name no image" if lack else ""


def build_datasets(
    config: DataConfig, tokenizer: PreTrainedTokenizerBase, media: MediaRule | None = None
) -> Datasets:
    """Build everything a run trains and evaluates on.

    Every process of a run may call this; it gives all of them the same rows in the same order.

    Args:
        config: sources, template, lengths and what to do with bad or over-long records.
        tokenizer: the base model's; it must be a fast one.
        media: how the model takes images, where they are attached; one per record beside the text by default.

    Returns:
        The data with a report.

    Raises:
        UserError: a source is missing or of unknown format, a record is bad (unless they are skipped), or
            nothing is left.
    """
    config = replace(config, train=expand_sources(config.train), evaluation=expand_sources(config.evaluation))
    media = media or MediaRule()
    encoder = Encoder(tokenizer, media.token_id)
    preparer = Preparer(load_template(config.template, tokenizer), encoder, config)
    train, train_report = _split(config.train, preparer, config, media, "training")
    evaluation, evaluation_report = _split(config.evaluation, preparer, config, media, "evaluation")
    return Datasets(
        train=_mixture(train, config),
        evaluation=datasets.concatenate_datasets(evaluation) if evaluation else None,
        report=DataReport(train_report, evaluation_report),
    )
