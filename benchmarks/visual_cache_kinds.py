"""The kinds of index that a visual cache can have, beside each other: what a default is chosen by.

Synthetic embeddings as in ``visual_cache``, fewer of them. Every index is visited as far as it takes to find
98 % of the exact neighbours for rows of the cache; recall and time are those of queries that are not rows.
Resident memory is that of the process that asks, torch and faiss included (about 520 MB of it).
"""

from collections.abc import Sequence
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from benchmarks.cache_building import build
from benchmarks.cache_processes import Answering, K, serve_cache, serve_exact
from benchmarks.ratios import compare
from benchmarks.results import Row
from benchmarks.synthetic_features import KINDS, Kind, SyntheticRows
from benchmarks.visual_cache import DIMENSION, FOLDER, QUERIES, all_neighbours
from imagebind_llm.cache.indexing import IndexConfig, recall_of
from imagebind_llm.cache.records import IndexRecord, read_record
from imagebind_llm.cache.visual_cache import CacheConfig

ROWS = 300_000
INDEXES = (
    IndexConfig(kind="exact"),
    IndexConfig(kind="ivf_sq8"),
    IndexConfig(kind="ivf_pq"),
    IndexConfig(kind="hnsw"),
)
_TRUTH_BATCH = 64


def run(
    minimum: int = 9,
    maximum: int = 25,
    folder: Path = FOLDER,
    rows: int = ROWS,
    dimension: int = DIMENSION,
    indexes: Sequence[IndexConfig] = INDEXES,
    queries: int = QUERIES,
    kinds: Sequence[Kind] = KINDS,
) -> list[Row]:
    """Build what is not there yet, and measure; the arguments are those of ``visual_cache.run``."""
    table = []
    for kind in kinds:
        source = SyntheticRows(kind, rows, dimension)
        asking = source.queries(queries)
        for index in indexes:
            cache = folder / f"{kind}-{rows}-{index.kind}"
            built = build(cache, kind, rows, dimension, index)
            table.append(_measured(asking, kind, cache, built, (minimum, maximum)))
    return table


def _measured(
    queries: Float[Tensor, "B E"],
    kind: Kind,
    cache: Path,
    built: dict[str, float],
    pairs: tuple[int, int],
) -> Row:
    """One kind of index on one kind of embeddings."""
    record = read_record(cache / "index" / "index.json", IndexRecord)
    mine, theirs = iter(queries.split(1) * 2), iter(queries.split(1) * 2)
    with (
        Answering(serve_exact, str(cache)) as exact,
        Answering(serve_cache, str(cache), CacheConfig(top_k=K)) as ours,
    ):
        wanted = all_neighbours(exact, queries, _TRUTH_BATCH)
        found = all_neighbours(ours, queries, 1)
        memory = ours.memory()
        faster, seconds, other = compare(
            lambda: ours.ask(next(mine)), lambda: exact.ask(next(theirs)), None, *pairs
        )
    index = cache / "index"
    facts = {
        "recall": recall_of(found[1], wanted[1]),
        "probes": record.probes,
        "milliseconds": 1e3 * seconds,
        "milliseconds of the other": 1e3 * other,
        **{f"MB {name}": round(size / 1e6) for name, size in memory.items()},
        "MB of the index": round(sum(file.stat().st_size for file in index.iterdir()) / 1e6),
        "seconds to build": built["seconds"],
    }
    return Row(
        measure=f"{kind}, {record.rows:,} rows, {record.kind}: times faster",
        against="exact search in float32, torch",
        **faster.figures(),
        facts=facts,
    )
