"""The verbs ``cache build`` and ``cache index``: items -> embeddings on disk -> an index.

``build`` may be stopped and started at any time, and divided over processes that know nothing of each other
(``--shard 2/8``); whichever way, the rows are the same. With all in one process it makes the index, too.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path

from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from imagebind_llm.cache.encoders import encoder_config, picture_encoder
from imagebind_llm.cache.indexing import IndexConfig, build_index
from imagebind_llm.cache.listing import listing
from imagebind_llm.cache.parts import PartWriter, StoredFeatures, part_folder
from imagebind_llm.cache.records import FORMAT, METRIC, EncoderRecord, IndexRecord, Manifest, write_record
from imagebind_llm.cache.rows import FeatureRows, PictureRows, Rows, feature_files
from imagebind_llm.cache.visual_cache import read_manifest
from llama_adapter.data.tensor_store import readable_bytes
from llama_adapter.errors import UserError
from llama_adapter.limits import Count, Natural
from llama_adapter.vision import VisionConfig

_SAVE_SECONDS = 10.0


@dataclass(kw_only=True)
class BuildConfig:
    """Encode pictures into a visual cache, or go on where that was stopped.

    Raises:
        UserError: a value is out of its range.
    """

    cache: str
    """Folder of the cache."""
    source: str
    """A folder of pictures, a text file with one path per line, a .tar file (WebDataset) or a folder of them;
    or features: a .npy, .safetensors or .pt file of one matrix, or a folder of such files."""
    imagebind: str | None = None
    """Folder of an ImageBind model, whose image tower encodes. For features: whose they are."""
    vision: VisionConfig | None = None
    """Another encoder instead, whose global feature is taken."""
    batch_size: Count = 32
    """Pictures that are encoded together."""
    device: str = "cpu"
    """Where the encoder runs."""
    workers: Natural = 4
    """Threads that decode pictures."""
    max_skipped: Natural = 100
    """Items of this process that may be unusable before it stops."""
    shard: str = "1/1"
    """Which part of the items this process encodes: 2/8 is the second of eight. With more than one, run
    'cache index' when all are done."""
    index: IndexConfig = field(default_factory=IndexConfig)
    """The index."""

    def __post_init__(self) -> None:
        """Checks the values."""
        for name in ("batch_size", "workers"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}. Use at least 1.")
        self.parsed_shard()

    def parsed_shard(self) -> tuple[int, int]:
        """Number of the part, from 1, and of all parts."""
        number, slash, count = self.shard.partition("/")
        if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
            raise UserError(f"shard is {self.shard!r}. Use the part and how many there are, such as 2/8.")
        return int(number), int(count)


@dataclass(kw_only=True)
class ReindexConfig:
    """Make the index of a visual cache, or another one."""

    cache: str
    """Folder of the cache; all its parts must be complete."""
    index: IndexConfig = field(default_factory=IndexConfig)
    """The index."""


def build(config: BuildConfig) -> None:
    """The verb ``cache build``.

    Raises:
        UserError: the source cannot be used, too many items cannot, or the folder holds another cache.
    """
    shard, shards = config.parsed_shard()
    cache, console = Path(config.cache), _console()
    rows, encoder = _rows(config)
    manifest = Manifest(
        format=FORMAT,
        dimension=rows.dimension,
        metric=METRIC,
        items=rows.items,
        source=rows.digest,
        block=rows.block,
        shards=shards,
        encoder=encoder,
        root=str(_root(Path(config.source)).resolve()),
    )
    claim(cache, manifest)
    encode_part(cache, rows, (shard, shards), config.max_skipped, console)
    if shards == 1:
        index(ReindexConfig(cache=config.cache, index=config.index))
    else:
        console.print(f"When all {shards} parts are done: llama-adapter cache index --cache {config.cache}")


def index(config: ReindexConfig) -> None:
    """The verb ``cache index``.

    Raises:
        UserError: the cache is not complete, or the settings do not fit it.
    """
    cache, console = Path(config.cache), _console()
    manifest = read_manifest(cache)
    features = StoredFeatures(cache, manifest.shards, manifest.dimension)
    with _only_process(cache / "index.lock", cache), _progress(console) as progress:
        record = build_index(cache, features, config.index, progress)
    console.print(_said(record, features.skipped, cache))


def claim(cache: Path, manifest: Manifest) -> None:
    """Make the folder that of this cache.

    Raises:
        UserError: it is that of another one.
    """
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / "cache.lock"):
        if not (cache / "cache.json").is_file():
            write_record(cache / "cache.json", manifest)
            return
        found = read_manifest(cache)
    names = [one.name for one in fields(Manifest) if one.name != "root"]
    if different := [name for name in names if getattr(manifest, name) != getattr(found, name)]:
        told = "; ".join(
            f"{name} {getattr(found, name)} there, {getattr(manifest, name)} here" for name in different
        )
        raise UserError(
            f"{str(cache)!r} holds a cache of something else: {told}. Use the same items, encoder, "
            "batch size and shards as before, or a new folder."
        )


def encode_part(cache: Path, rows: Rows, shard: tuple[int, int], max_skipped: int, console: Console) -> None:
    """Encode what is left of one part.

    Raises:
        UserError: too many items cannot be used, or another process is at it.
    """
    number, count = shard
    first, stop = (rows.total_blocks * at // count for at in (number - 1, number))
    folder = part_folder(cache, number, count)
    folder.mkdir(parents=True, exist_ok=True)
    with _only_process(folder / "lock", folder), PartWriter(folder) as part, _progress(console) as progress:
        if part.finished:
            return
        items = sum(len(rows.range_of(block)) for block in range(first, stop))
        done = sum(len(rows.range_of(block)) for block in range(first, first + part.blocks))
        task = progress.add_task("encoding", total=items, completed=done)
        saved = time.monotonic()
        for block in rows.blocks(first + part.blocks, stop):
            part.add(block)
            for name, reason in block.skipped.items():
                progress.console.print(f"left out {name}: {reason}", markup=False, highlight=False)
            progress.advance(task, len(block.names) + len(block.skipped))
            if part.skipped > max_skipped:
                part.save()
                raise _too_many(part, max_skipped)
            if time.monotonic() - saved > _SAVE_SECONDS:
                part.save()
                saved = time.monotonic()
        part.finish()


def _too_many(part: PartWriter, limit: int) -> UserError:
    """What is said of too many bad items."""
    return UserError(
        f"{part.skipped} items cannot be used, listed in {str(part.folder / 'skipped.jsonl')!r}; "
        f"max_skipped is {limit}. Repair them and build anew, or raise max_skipped."
    )


def _rows(config: BuildConfig) -> tuple[Rows, EncoderRecord | None]:
    """What the source holds, and whose embeddings these are."""
    source = Path(config.source)
    named = config.imagebind is not None or config.vision is not None
    if files := feature_files(source):
        rows = FeatureRows(files)
        if not named:
            return rows, None
        encoder = picture_encoder(encoder_config(config.imagebind, config.vision))
        if encoder.dimension != rows.dimension:
            raise UserError(
                f"The features have the width {rows.dimension}, {encoder.record} gives {encoder.dimension}. "
                "Name the encoder that made them."
            )
        return rows, encoder.record
    pictures = listing(source)
    encoder = picture_encoder(encoder_config(config.imagebind, config.vision), config.device)
    return PictureRows(pictures, encoder, config.batch_size, config.workers), encoder.record


def _root(source: Path) -> Path:
    """Where the names of items begin."""
    return source if source.is_dir() else source.parent


@contextmanager
def _only_process(lock: Path, what: Path) -> Iterator[None]:
    """Refuse to work at something that another process is working at."""
    held = FileLock(lock)
    try:
        held.acquire(blocking=False)
    except Timeout as error:
        raise UserError(
            f"Another process is working at {str(what)!r}. Wait for it, or choose another shard."
        ) from error
    try:
        yield
    finally:
        held.release()


def _console() -> Console:
    """Where progress is shown."""
    return Console(stderr=True, soft_wrap=True, markup=False, highlight=False)


def _progress(console: Console) -> Progress:
    """Lines with bars."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )


def _said(record: IndexRecord, skipped: int, cache: Path) -> str:
    """One line on a finished cache."""
    size = sum(file.stat().st_size for file in cache.rglob("*") if file.is_file())
    found = (
        ""
        if record.kind == "exact"
        else f", {record.probes} probes find {record.recall:.1%} of 10 neighbours"
    )
    return (
        f"{cache}: {record.rows:,} rows, {skipped} items left out, index {record.kind}{found}, "
        f"{readable_bytes(size)} on disk"
    )
