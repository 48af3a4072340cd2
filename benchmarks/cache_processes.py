"""Processes of their own that search: exactly, or with a cache; and their memory.

A process is asked through a pipe. Memory is what the kernel says of the whole process: pages that are its own
(anonymous), and pages of files that are mapped into it. Linux only. What is imported here is in that memory,
so it is no more than a search needs.

Dimensions: B queries, E width.
"""

from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from imagebind_llm.cache.faiss_index import faiss
from imagebind_llm.cache.parts import StoredFeatures
from imagebind_llm.cache.visual_cache import CacheConfig, VisualCache, read_manifest
from llama_adapter.errors import UserError

K = 10
_SERVER = get_context("forkserver")
_SERVER.set_forkserver_preload([__name__])
_ROWS_AT_ONCE = 500_000


def memory() -> dict[str, int]:
    """Bytes of this process that are resident: anonymous, and of files."""
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]
    kilobytes = {line.partition(":")[0]: int(line.split()[1]) for line in lines}
    anonymous = kilobytes["Anonymous"] * 1024
    return {"anonymous": anonymous, "of files": kilobytes["Rss"] * 1024 - anonymous}


class Answering:
    """A process that searches. A context."""

    def __init__(self, target: Callable[..., None], *arguments: Any) -> None:
        self._pipe, other = _SERVER.Pipe()
        self._process = _SERVER.Process(target=target, args=(other, torch.get_num_threads(), *arguments))
        self._process.start()

    def __enter__(self) -> "Answering":
        """Wait until it is ready."""
        self._receive()
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self._pipe.send(None)
        self._process.join()

    def ask(self, queries: Float[Tensor, "B E"], by: str = "") -> tuple[Tensor, Tensor]:
        """Similarities and rows of the nearest; ``by`` chooses among several ways of one process."""
        self._pipe.send((queries.numpy(), by))
        similarities, rows = self._receive()
        return torch.from_numpy(similarities), torch.from_numpy(rows)

    def memory(self) -> dict[str, int]:
        """What ``memory`` says there."""
        self._pipe.send("memory")
        found: dict[str, int] = self._receive()
        return found

    def _receive(self) -> Any:
        try:
            return self._pipe.recv()
        except EOFError as error:
            self._process.join()
            raise UserError(
                f"A process that searches has ended with code {self._process.exitcode}. Free some memory."
            ) from error


def serve_exact(pipe: Any, threads: int, cache: str) -> None:
    """All rows as float32 in memory, compared by torch or by faiss."""
    set_threads(threads)
    manifest = read_manifest(Path(cache))
    features = StoredFeatures(Path(cache), manifest.shards, manifest.dimension)
    rows = torch.empty(len(features), features.dimension)
    start = 0
    for chunk in features.chunks(16384):
        rows[start : start + len(chunk)] = chunk
        start += len(chunk)

    def by_torch(queries: Tensor) -> tuple[Tensor, Tensor]:
        """Matrix product and top-k, some rows at a time."""
        parts = []
        for first in range(0, len(rows), _ROWS_AT_ONCE):
            part = rows[first : first + _ROWS_AT_ONCE]
            found = (part @ queries[0])[None] if len(queries) == 1 else queries @ part.T
            values, places = found.topk(min(K, len(part)))
            parts.append((values, places + first))
        values, order = torch.cat([part[0] for part in parts], 1).topk(K)
        return values, torch.cat([part[1] for part in parts], 1).gather(1, order)

    def by_faiss(queries: Tensor) -> tuple[Any, Any]:
        """What a flat index does."""
        library = faiss()
        return library.knn(queries.numpy(), rows.numpy(), K, metric=library.METRIC_INNER_PRODUCT)

    _serve(pipe, lambda queries, by: by_faiss(queries) if by == "faiss" else by_torch(queries))


def serve_cache(pipe: Any, threads: int, cache: str, config: CacheConfig) -> None:
    """The cache as users have it."""
    set_threads(threads)
    opened = VisualCache.open(cache, config)
    _serve(pipe, lambda queries, _: opened.search(queries, K)[:2])


def _serve(pipe: Any, search: Callable[[Tensor, str], tuple[Any, Any]]) -> None:
    """Answer until there is nothing more."""
    pipe.send("ready")
    while (asked := pipe.recv()) is not None:
        if asked == "memory":
            pipe.send(memory())
            continue
        queries, by = asked
        similarities, rows = search(torch.from_numpy(queries), by)
        pipe.send((np.asarray(similarities), np.asarray(rows)))


def set_threads(threads: int) -> None:
    """Of torch and of faiss."""
    torch.set_num_threads(threads)
    faiss().omp_set_num_threads(threads)
