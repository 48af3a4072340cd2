"""The visual cache at three million embeddings: what its default index finds, how fast, and in what memory.

Embeddings are synthetic (``benchmarks/synthetic_features.py`` says how), of two kinds; queries are not among
the rows. The cache is compared with exact search over all rows in float32, in a process of its own;
both hold the same rows and are asked in turn, with all pages that were asked before still in memory. Exact
search is timed in two ways, torch's matrix product and faiss's flat search. Resident memory is that of the
whole process after all queries, libraries included. A build is resumed where it was stopped:
``python -m benchmarks.visual_cache --build clustered`` makes one without measuring.
"""

import argparse
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from benchmarks.cache_building import build
from benchmarks.cache_processes import Answering, K, serve_cache, serve_exact
from benchmarks.ratios import bootstrap_totals, compare
from benchmarks.results import Row
from benchmarks.synthetic_features import KINDS, Kind, SyntheticRows
from imagebind_llm.cache.indexing import IndexConfig
from imagebind_llm.cache.parts import StoredFeatures
from imagebind_llm.cache.records import IndexRecord, read_record
from imagebind_llm.cache.visual_cache import CacheConfig, blended

ROWS, DIMENSION, QUERIES = 3_000_000, 1024, 512
FOLDER = Path("models/visual_cache")
BATCHES = (1, 32)
RECALL = {"clustered": 0.97, "hard": 0.90}
TIMES_FASTER = {"clustered": 50.0, "hard": 10.0}
MEMORY, COSINE = 0.3, 0.999
_TRUTH_BATCH = 64


def run(
    minimum: int = 9,
    maximum: int = 25,
    folder: Path = FOLDER,
    rows: int = ROWS,
    dimension: int = DIMENSION,
    index: IndexConfig | None = None,
    queries: int = QUERIES,
    kinds: Sequence[Kind] = KINDS,
) -> list[Row]:
    """Build what is not there yet, and measure.

    Args:
        minimum: pairs of queries in any case.
        maximum: pairs at most.
        folder: where the caches lie: 22 GB at the full size.
        rows: N.
        dimension: E.
        index: None is the default one.
        queries: for recall and the blend; the first of them are timed.
        kinds: of embeddings.
    """
    table = []
    for kind in kinds:
        source = SyntheticRows(kind, rows, dimension)
        cache = folder / f"{kind}-{rows}"
        built = build(cache, kind, rows, dimension, index or IndexConfig())
        table += _measured(source.queries(queries), source, cache, built, (minimum, maximum))
    return table


def _measured(
    queries: Float[Tensor, "B E"],
    source: SyntheticRows,
    cache: Path,
    built: dict[str, float],
    pairs: tuple[int, int],
) -> list[Row]:
    """All rows of one kind."""
    config = CacheConfig(top_k=K)
    with Answering(serve_exact, str(cache)) as exact, Answering(serve_cache, str(cache), config) as ours:
        wanted = all_neighbours(exact, queries, _TRUTH_BATCH)
        found = all_neighbours(ours, queries, 1)
        memories = {"ours": ours.memory(), "exact": exact.memory()}
        table = [_recall(source.kind, found[1], wanted[1], cache)]
        for batch, way in itertools.product(BATCHES, ("torch", "faiss")):
            table.append(_speed(source.kind, queries, batch, way, ours, exact, pairs))
    table += _memory(source, memories, built, cache)
    table.append(_blend(source, queries, found, wanted, cache))
    return table


def all_neighbours(process: Answering, queries: Float[Tensor, "B E"], batch: int) -> tuple[Tensor, Tensor]:
    """Neighbours of all queries."""
    parts = [process.ask(queries[at : at + batch]) for at in range(0, len(queries), batch)]
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


def _recall(kind: Kind, found: Int[Tensor, "B K"], wanted: Int[Tensor, "B K"], cache: Path) -> Row:
    """Share of the exact neighbours that were found."""
    hits = (found.unsqueeze(2) == wanted.unsqueeze(1)).any(2).float().mean(1)
    record = read_record(cache / "index" / "index.json", IndexRecord)
    return Row(
        measure=f"{kind}: recall of {K} neighbours",
        against="exact search",
        **bootstrap_totals([1.0] * len(hits), hits.tolist()).figures(),
        target=RECALL[kind],
        facts={
            "rows": record.rows,
            "index": record.kind,
            "lists": record.lists,
            "probes": record.probes,
            "candidates": record.candidates,
            "expected when built": record.recall,
        },
    )


def _speed(
    kind: Kind,
    queries: Float[Tensor, "B E"],
    batch: int,
    way: str,
    ours: Answering,
    exact: Answering,
    pairs: tuple[int, int],
) -> Row:
    """How much faster a batch is answered."""
    mine, theirs = (itertools.cycle(queries.split(batch)) for _ in range(2))
    target = TIMES_FASTER[kind] if batch == 1 else None
    faster, seconds, other = compare(
        lambda: ours.ask(next(mine)), lambda: exact.ask(next(theirs), way), target, *pairs
    )
    return Row(
        measure=f"{kind}: {K} neighbours, batch {batch}: times faster",
        against=f"exact search in float32, {way}",
        **faster.figures(),
        target=target,
        facts={"milliseconds": 1e3 * seconds, "milliseconds of the other": 1e3 * other},
    )


def _memory(
    source: SyntheticRows, memories: dict[str, dict[str, int]], built: dict[str, float], cache: Path
) -> list[Row]:
    """Shares of what the rows take in float32."""
    exact = 4 * source.items * source.dimension
    ours = memories["ours"]
    asked, made = sum(ours.values()) / exact, built["peak"] / exact
    disk = sum(file.stat().st_size for file in cache.rglob("*") if file.is_file())
    facts: dict[str, Any] = {f"bytes {name}": size for name, size in ours.items()}
    facts["bytes of the exact process"] = sum(memories["exact"].values())
    return [
        Row(
            measure=f"{source.kind}: resident memory of the process that asks: share",
            against="all rows in float32",
            pairs=1,
            value=asked,
            low=asked,
            high=asked,
            target=MEMORY,
            at_most=True,
            facts=facts | {"bytes of the rows in float32": exact},
        ),
        Row(
            measure=f"{source.kind}: peak of anonymous memory while building: share",
            against="all rows in float32",
            pairs=1,
            value=made,
            low=made,
            high=made,
            facts={"bytes": int(built["peak"]), "seconds": built["seconds"], "bytes on disk": disk},
        ),
    ]


def _blend(
    source: SyntheticRows,
    queries: Float[Tensor, "B E"],
    found: tuple[Tensor, Tensor],
    wanted: tuple[Tensor, Tensor],
    cache: Path,
) -> Row:
    """How near the blended embeddings of both neighbours are."""
    features, config = StoredFeatures(cache, 1, source.dimension), CacheConfig()
    ours, exact = (blended(queries, near[0], features.rows(near[1]), config) for near in (found, wanted))
    cosine = (ours * exact).sum(-1)
    return Row(
        measure=f"{source.kind}: cosine of the blended embedding",
        against="with exact neighbours",
        **bootstrap_totals([1.0] * len(cosine), cosine.tolist()).figures(),
        target=COSINE,
        facts={"least": float(cosine.min())},
    )


def main(arguments: list[str] | None = None) -> int:
    """Build one cache, or go on with it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.visual_cache", description=__doc__)
    parser.add_argument("--build", choices=KINDS, required=True)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    cache = options.folder / f"{options.build}-{options.rows}"
    build(cache, options.build, options.rows, DIMENSION, IndexConfig())
    return 0


if __name__ == "__main__":
    sys.exit(main())
