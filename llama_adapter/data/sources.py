"""From a source's settings to canonical records, read through ``datasets``.

A source becomes *plans*, short JSON texts that say all about what will be read, including size and change
time of every file. They are the only argument of the generator that ``datasets`` runs, so its cache is
neither stale when a file changes nor missed when nothing did, and several processes share it under its own
lock. Tokens are not known here.
"""

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import datasets

from llama_adapter.data.canonical import canonical_row
from llama_adapter.data.config import SourceConfig, parse_rows
from llama_adapter.data.containers import CONTAINERS
from llama_adapter.data.formats import FORMATS, detect_format, named_format
from llama_adapter.data.reading import rename
from llama_adapter.data.records import RawRow
from llama_adapter.data.rows import chosen_rows, joined_rows, read_json_object, sampled_rows
from llama_adapter.data.tasks import plan_task, task_format
from llama_adapter.errors import UserError

READER_VERSION = 3
"""Part of every plan: raise it when a reader's output changes, so that no old cache is used."""
DETECTION_ROWS = 100
"""How many records of a file are looked at to find its columns."""

TURN = {
    "role": datasets.Value("string"),
    "text": datasets.Value("string"),
    "context": datasets.Value("string"),
    "learned": datasets.Value("bool"),
    "reasoning": datasets.Value("string"),
    "tool_calls": datasets.Value("string"),
    "tool_call_id": datasets.Value("string"),
    "name": datasets.Value("string"),
}
RECORD_FEATURES = datasets.Features(
    {
        "record_id": datasets.Value("string"),
        "turns": datasets.List(TURN),
        "media": datasets.List(datasets.Value("string")),
        "tools": datasets.Value("string"),
        "unread": datasets.List(datasets.Value("string")),
        "problem": datasets.Value("string"),
        "type": datasets.Value("string"),
        "characters": datasets.Value("int32"),
    }
)
"""The canonical record as a table; ``problem`` is empty for usable records. ``media`` are its images,
calls and ``tools`` are JSON. ``type`` is what a record counts as when
batches are made, ``characters`` how long its turns are."""


def _folder_files(folder: Path) -> list[Path]:
    """The readable files of a folder, in a fixed order."""
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in CONTAINERS and path.is_file() and not path.name.startswith(".")
    )
    if not files:
        raise UserError(
            f"the folder {str(folder)!r} holds no data. Put files there that end in {', '.join(CONTAINERS)}."
        )
    return files


def _missing(path: str) -> UserError:
    """The error for a path that is neither a file nor the name of a hub data set."""
    parent = Path(path).parent
    hint = f"{str(parent)!r} does not exist either"
    if parent.is_dir():
        near = sorted(entry.name for entry in parent.iterdir())[:8]
        hint = f"{str(parent)!r} holds: {', '.join(near) or 'nothing'}"
    return UserError(
        f"{path!r} does not exist. Check the path ({hint}), or name a hub data set as 'owner/name'."
    )


def _looks_like_hub_name(path: str) -> bool:
    """Whether a path that does not exist may name a hub data set."""
    return (
        path.count("/") <= 1
        and not path.startswith((".", "/", "~"))
        and Path(path).suffix.lower() not in CONTAINERS
    )


def _file_entry(path: Path, name: str) -> dict[str, Any]:
    """What a plan says about one file."""
    stat = path.stat()
    return {
        "kind": "file",
        "path": str(path),
        "name": name,
        "size": stat.st_size,
        "changed": stat.st_mtime_ns,
    }


def _entries(config: SourceConfig) -> list[dict[str, Any]]:
    """What a plan says about each part of a source."""
    path = Path(config.path).expanduser()
    for name in ("dataset_dict.json", "state.json"):  # what ``save_to_disk`` leaves behind
        if (path / name).is_file():
            entry = _file_entry(path / name, config.path)
            return [entry | {"kind": "saved", "path": str(path), "split": config.split}]
    if path.exists():
        return _file_entries(config, path)
    if not _looks_like_hub_name(config.path):
        raise _missing(config.path)
    return [{"kind": "hub", "path": config.path, "name": config.path} | _hub_identity(config)]


def _file_entries(config: SourceConfig, path: Path) -> list[dict[str, Any]]:
    """What a plan says about a file, or about each file of a folder."""
    if config.split != "train" or config.subset is not None:
        asked = config.subset if config.split == "train" else config.split
        raise UserError(
            f"{config.path!r} is read as plain files, which have no split or subset {asked!r}. "
            "Use rows to take a part."
        )
    if path.is_dir():
        folder = config.path.rstrip("/")
        return [_file_entry(file, f"{folder}/{file.relative_to(path)}") for file in _folder_files(path)]
    suffix = config.container or path.suffix.lower()
    if suffix not in CONTAINERS:
        suffixes = ", ".join(CONTAINERS)
        raise UserError(f"{config.path!r} ends in {suffix!r}. Use a file that ends in {suffixes}.")
    return [_file_entry(path, config.path)]


def _hub_identity(config: SourceConfig) -> dict[str, Any]:
    """Everything that decides what a hub data set contains."""
    identity: dict[str, Any] = {"split": config.split, "subset": config.subset, "streaming": config.streaming}
    if not config.streaming:
        identity["fingerprint"] = getattr(_load_hub(identity | {"path": config.path}), "_fingerprint", "")
    return identity


def _load_hub(entry: dict[str, Any]) -> Any:
    """Open a hub data set.

    Raises:
        UserError: it cannot be had.
    """
    try:
        return datasets.load_dataset(
            entry["path"], name=entry["subset"], split=entry["split"], streaming=entry["streaming"]
        )
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        asked = f"{entry['path']!r} (split {entry['split']!r})"
        raise UserError(
            f"there is no file or folder {entry['path']!r}, and the hub data set {asked} cannot be loaded: "
            f"{error}. Check the path or the name, and the network."
        ) from error


def _load_saved(entry: dict[str, Any]) -> Any:
    """Open a folder written by ``save_to_disk``.

    Raises:
        UserError: it has no such split.
    """
    data = datasets.load_from_disk(entry["path"])
    if not isinstance(data, datasets.DatasetDict):
        return data
    if entry["split"] not in data:
        raise UserError(
            f"{entry['path']!r} has no split {entry['split']!r}. Use one of: {', '.join(map(str, data))}."
        )
    return data[entry["split"]]


def _entry_rows(entry: dict[str, Any]) -> Iterator[RawRow]:
    """The rows of one part of a source."""
    if entry.get("records"):
        yield from read_json_object(Path(entry["path"]), entry["name"], entry["records"])
        return
    if entry["kind"] == "file":
        path = Path(entry["path"])
        yield from CONTAINERS[entry.get("container") or path.suffix.lower()](path, entry["name"])
        return
    data = _load_hub(entry) if entry["kind"] == "hub" else _load_saved(entry)
    for column, feature in (data.features or {}).items():
        if isinstance(feature, datasets.Image):
            data = data.cast_column(column, datasets.Image(decode=False))
    for number, row in enumerate(data, start=1):
        yield RawRow(f"{entry['name']}:{number}", row=row)


def _rows(entry: dict[str, Any], plan: Mapping[str, Any]) -> Iterator[RawRow]:
    """The rows of one part of a source, as its plan changes and chooses them."""
    rows = _entry_rows(entry)
    if join := plan.get("join"):
        rows = joined_rows(rows, _entry_rows(join["entry"]), join["column"])
    return sampled_rows(chosen_rows(rows, plan.get("only", {}), plan.get("each")), plan.get("ratio"))


def _changes(config: SourceConfig) -> dict[str, Any]:
    """What a plan says about changing and choosing rows; nothing where all stay as they are."""
    names = ("media_folder", "media_name", "marks", "ignore", "only", "each", "ratio")
    changes = {name: value for name in names if (value := getattr(config, name))}
    if config.task is not None:
        changes["task"] = plan_task(config.task)
    if config.join is not None:
        path = Path(config.join.path).expanduser()
        if not path.is_file():
            raise _missing(config.join.path)
        entry = _file_entry(path, config.join.path) | {"records": config.join.records}
        changes["join"] = {"column": config.join.column, "entry": entry}
    return changes


def _format_name(entry: dict[str, Any], config: SourceConfig, changes: Mapping[str, Any]) -> str:
    """The format of one part of a source: as set, or found by the columns of its first records."""
    if config.task is not None:
        return config.task.name
    if config.format != "auto":
        return named_format(config.format).name
    columns: set[str] = set()
    problems = []
    for raw in islice(_rows(entry, changes), DETECTION_ROWS):
        if raw.problem:
            problems.append(f"{raw.record_id}: {raw.problem}")
        else:
            named = rename(raw.row, tuple(config.columns.items())).items()
            columns |= {key for key, value in named if value is not None and key not in config.ignore}
    if not columns and not problems:
        raise UserError(
            f"{entry['name']!r} holds no records. Give a file that has some, or leave the source out."
        )
    if not columns:
        listed = "; ".join(problems[:3])
        raise UserError(
            f"no record of {entry['name']!r} can be read ({listed}). Repair the file and try again."
        )
    return detect_format(columns, repr(entry["name"])).name


def source_plans(config: SourceConfig, text_alone: bool = False) -> list[str]:
    """Say completely what will be read for a source.

    Args:
        config: the source.
        text_alone: whether media are left out of the run (``DataConfig.media`` is ``ignore``); else sounds
            and videos, which training does not show, are a problem of their record.

    Returns:
        JSON texts; one per file, so that streaming can share files between workers, or a single one when only
        some rows are used.

    Raises:
        UserError: nothing is there, or its format is not known.
    """
    start, stop = parse_rows(config.rows)
    entries = _entries(config)
    if config.records is not None:
        entries = [entry | {"records": config.records} for entry in entries if entry["kind"] == "file"]
    if config.container is not None:
        entries = [entry | {"container": config.container} for entry in entries]
    changes = _changes(config) | {"type": config.batch_type, "text_alone": text_alone}
    entries = [entry | {"format": _format_name(entry, config, changes)} for entry in entries]
    groups = [entries] if config.rows else [[entry] for entry in entries]
    common = {"version": READER_VERSION, "columns": config.columns, "start": start, "stop": stop, **changes}
    plans = [json.dumps(common | {"entries": group}, sort_keys=True) for group in groups]
    if config.rows and next(canonical_rows(plans), None) is None:
        raise UserError(f"rows {config.rows!r} of {config.path!r} hold no record. Use rows that exist.")
    return plans


def canonical_rows(plans: list[str]) -> Iterator[dict[str, Any]]:
    """Read records as plans say.

    Args:
        plans: of ``source_plans``.

    Yields:
        Rows of ``RECORD_FEATURES``; a record that cannot be used has a ``problem`` and no turns.
    """
    for plan in map(json.loads, plans):
        formats = {plan["task"]["name"]: task_format(plan["task"])} if plan.get("task") else FORMATS
        rows = ((entry["format"], raw) for entry in plan["entries"] for raw in _rows(entry, plan))
        for name, raw in islice(rows, plan["start"], plan["stop"]):
            yield canonical_row(formats[name], raw, plan) | {"type": plan["type"]}


def load_records(plans: list[str], cache_dir: str | None) -> datasets.Dataset:
    """Read a source into a memory-mapped table; a second call with the same plans only opens it.

    Args:
        plans: of ``source_plans``.
        cache_dir: where to keep the table; None is the cache of ``datasets``.

    Returns:
        The table, with ``RECORD_FEATURES``.
    """
    return datasets.Dataset.from_generator(
        canonical_rows, features=RECORD_FEATURES, cache_dir=cache_dir, gen_kwargs={"plans": plans}
    )


def stream_records(plans: list[str]) -> datasets.IterableDataset:
    """Read a source while it is used, storing nothing.

    Args:
        plans: of ``source_plans``.

    Returns:
        The stream, with ``RECORD_FEATURES`` and one shard per plan.
    """
    return datasets.IterableDataset.from_generator(
        canonical_rows, features=RECORD_FEATURES, gen_kwargs={"plans": plans}
    )
