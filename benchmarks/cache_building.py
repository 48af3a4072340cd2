"""A process of its own that builds a cache of synthetic embeddings, and its memory while it does."""

import json
import os
import threading
import time
from multiprocessing import get_context
from pathlib import Path

import torch
from rich.console import Console

from benchmarks.cache_processes import memory, set_threads
from benchmarks.synthetic_features import Kind, SyntheticRows
from imagebind_llm.cache.build import ReindexConfig, claim, encode_part, index
from imagebind_llm.cache.indexing import IndexConfig
from imagebind_llm.cache.records import FORMAT, Manifest
from llama_adapter.errors import UserError

_SPAWN = get_context("spawn")


def build(cache: Path, kind: Kind, items: int, dimension: int, config: IndexConfig) -> dict[str, float]:
    """Make a cache of synthetic rows in a process of its own, or go on where an earlier one was stopped.

    Returns:
        Its ``seconds`` and its ``peak`` of anonymous bytes, over all processes that worked at it.
    """
    if not (cache / "index" / "index.json").is_file():
        process = _SPAWN.Process(
            target=_build, args=(torch.get_num_threads(), cache, kind, items, dimension, config)
        )
        process.start()
        process.join()
        if process.exitcode:
            raise UserError(f"Building {str(cache)!r} ended with code {process.exitcode}. Start it again.")
    notes = [json.loads(path.read_text(encoding="utf-8")) for path in cache.glob("watched-*.json")]
    return {
        "seconds": sum(note["seconds"] for note in notes),
        "peak": max(note["peak"] for note in notes),
    }


def _build(threads: int, cache: Path, kind: Kind, items: int, dimension: int, config: IndexConfig) -> None:
    """The process."""
    set_threads(threads)
    cache.mkdir(parents=True, exist_ok=True)
    threading.Thread(target=_watch, args=(cache,), daemon=True).start()
    rows = SyntheticRows(kind, items, dimension)
    manifest = Manifest(
        format=FORMAT,
        dimension=dimension,
        metric="inner_product",
        items=items,
        source=rows.digest,
        block=rows.block,
        shards=1,
        encoder=None,
        root="",
    )
    claim(cache, manifest)
    encode_part(cache, rows, (1, 1), 0, Console(stderr=True))
    index(ReindexConfig(cache=str(cache), index=config))


def _watch(cache: Path) -> None:
    """Note the peak of memory and the time until the process ends."""
    path, start, peak = cache / f"watched-{os.getpid()}.json", time.monotonic(), 0
    while True:
        peak = max(peak, memory()["anonymous"])
        path.write_text(json.dumps({"seconds": time.monotonic() - start, "peak": peak}), encoding="utf-8")
        time.sleep(0.1)
