"""LLaMA2-Accessory's lists of data: a YAML file whose ``META`` names files, types, folders and shares.

Its entries become sources, so that such a file is a source like any other. Paths are looked up as there:
where the program was started. Source: docs/sources/llama2-accessory.md#data-lists.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from llama_adapter.data.config import SourceConfig
from llama_adapter.errors import UserError

SUFFIXES = (".yaml", ".yml")
FORMATS = {None: "accessory", "single_turn_llava": "accessory", "caption": "captions"}
"""``preprocess`` of an entry -> the format of its records."""
KNOWN = ("path", "type", "root", "ratio", "preprocess", "prompt_type")


def expand_sources(sources: Sequence[SourceConfig]) -> list[SourceConfig]:
    """The sources, with those of each list in its place.

    Raises:
        UserError: a list cannot be read, or says what is not known here.
    """
    expanded: list[SourceConfig] = []
    for source in sources:
        if Path(source.path).suffix.lower() in SUFFIXES:
            expanded += _entries(source)
        else:
            expanded.append(source)
    return expanded


def _entries(source: SourceConfig) -> list[SourceConfig]:
    """The sources of one list."""
    path = Path(source.path).expanduser()
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(
            f"{source.path!r} cannot be read: {error}. Use a YAML file with a list META."
        ) from error
    entries = content.get("META") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        raise UserError(
            f"{source.path!r} has no list META. Add one: - path: FILE and type: NAME for each file."
        )
    if source.weight is not None and len(entries) > 1:
        raise UserError(
            f"weight is {source.weight} for {source.path!r}, which lists {len(entries)} files. Use a source "
            "with a weight for each file, or no weights."
        )
    return [_source(source, number, entry) for number, entry in enumerate(entries, start=1)]


def _source(listed: SourceConfig, number: int, entry: Any) -> SourceConfig:
    """One entry of a list as a source."""
    place = f"entry {number} of {listed.path!r}"
    if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
        raise UserError(f"{place} is {entry!r}. Use a mapping with a path.")
    if unknown := sorted(set(entry) - set(KNOWN)):
        raise UserError(f"{place} has {unknown}, which is not known here. Use: {', '.join(KNOWN)}.")
    if entry.get("preprocess") not in FORMATS:
        raise UserError(
            f"{place} has preprocess {entry['preprocess']!r}. Use single_turn_llava, caption, or none."
        )
    if entry.get("prompt_type") not in (None, "alpaca"):
        raise UserError(
            f"{place} has prompt_type {entry['prompt_type']!r}. Leave it out: data.template sets the prompts."
        )
    return replace(
        listed,
        path=entry["path"],
        type=str(entry["type"]) if entry.get("type") is not None else listed.type,
        media_folder=entry.get("root") or listed.media_folder,
        ratio=entry.get("ratio") or listed.ratio,
        container=".tsv" if entry["path"].endswith(".csv") else listed.container,
        format=FORMATS[entry.get("preprocess")]
        if listed.format == "auto" and not listed.task
        else listed.format,
    )
