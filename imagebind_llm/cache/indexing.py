"""Building the index of a cache in steps that survive a kill, in little memory.

Centroids (and tables) are trained on a sample; then pieces of the rows are coded, each written to a file of
its own; then the pieces' lists are joined in one file. So memory holds one sample or one piece, never all
codes. A graph has no such steps: it is built in memory as a whole. In the end it is measured how much of the
index a query must visit to find what exact search finds. The folder ``index/``: ``trained.faiss`` and
``piece-*.faiss`` (until joined), ``knn.index``, ``lists.ivfdata``, ``index.json`` when all is done.

Dimensions: N rows, B queries, E width.
"""

import importlib
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from rich.progress import Progress
from torch import Tensor

from imagebind_llm.cache.exact import exact_neighbours
from imagebind_llm.cache.faiss_index import IndexedSearch, faiss, most_probes, open_index
from imagebind_llm.cache.parts import StoredFeatures
from imagebind_llm.cache.records import IndexRecord, read_record, write_record
from llama_adapter.errors import UserError
from llama_adapter.limits import Count, PartOf, Seed

Kind = Literal["exact", "ivf_sq8", "ivf_pq", "hnsw"]

_CHUNK_ROWS = 16384
_NEIGHBOURS = 10
_FEWEST_LISTS = 4
"""Calibration asks with rows of the cache, which find their neighbours with fewer visits than what is no row;
and beside the comparison with all centres these few cost nothing."""
_CANDIDATES = {"ivf_sq8": 50, "ivf_pq": 400, "hnsw": 50}
_EXACT_UP_TO = 20_000
_ROWS_PER_CENTROID = 40
_PQ_ROWS = 256
_QUANTIZER_ROWS = 4096
"""A sample has at least so many rows, for the tables of codes."""


@dataclass(kw_only=True)
class IndexConfig:
    """How the rows are made searchable.

    Raises:
        UserError: a value is out of its range.
    """

    kind: Literal["auto", "exact", "ivf_sq8", "ivf_pq", "hnsw"] = "auto"
    """exact: no index. ivf_sq8: an inverted file with 8 bits per value. ivf_pq: with ``pq_bytes`` per row.
    hnsw: a graph over 8-bit values, built and held in memory. auto: exact up to 20,000 rows, else ivf_sq8."""
    lists: Count | None = None
    """Of the inverted file; None takes the power of two next to 2.4 times the root of the rows."""
    pq_bytes: Count | None = None
    """Bytes of a row with ivf_pq, a divisor of the width; None takes an eighth of it."""
    links: Count = 32
    """Neighbours of a row in the graph."""
    recall: PartOf = 0.98
    """Share of the 10 exact neighbours that are to be found. The index is visited as far as that takes,
    measured with rows of the cache; embeddings of other modalities lie farther off and find less."""
    queries: Count = 256
    """Rows that this is measured with."""
    piece_rows: Count = 262_144
    """Rows that are coded in memory at once."""
    seed: Seed = 0
    """Of the sample that is trained on."""

    def __post_init__(self) -> None:
        """Checks the values."""
        for name in ("lists", "pq_bytes", "links", "queries", "piece_rows"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name} of the index is {value}. Use at least 1.")
        if not 0 < self.recall <= 1:
            raise UserError(f"recall of the index is {self.recall}. Use a share above 0, up to 1.")


def build_index(
    cache: Path, features: StoredFeatures, config: IndexConfig, progress: Progress
) -> IndexRecord:
    """Make the index of a complete cache, or what is left to do of it.

    Raises:
        UserError: there are no rows, or the settings do not fit them.
    """
    if not len(features):
        raise UserError(
            f"{str(cache)!r} has no rows, so there is nothing to index. Build it from other items."
        )
    plan = _planned(features, config)
    folder = cache / "index"
    _start(folder, plan)
    if plan.kind == "exact":
        write_record(folder / "index.json", plan)
        return plan
    if not (folder / "knn.index").is_file():
        work = _Work(folder, features, config, plan, progress)
        work.graph() if plan.kind == "hnsw" else work.inverted_file()
    with _step(progress, "measuring recall", 1):
        record = calibrated(open_index(folder / "knn.index"), features, config, plan)
    write_record(folder / "index.json", record)
    for left in (folder / "trained.faiss", folder / "plan.json", *folder.glob("piece-*.faiss")):
        left.unlink(missing_ok=True)
    return record


def _planned(features: StoredFeatures, config: IndexConfig) -> IndexRecord:
    """What is going to be built."""
    rows, kind = len(features), config.kind
    if kind == "auto":
        kind = "exact" if rows <= _EXACT_UP_TO else "ivf_sq8"
    lists = config.lists or max(1, 2 ** round(math.log2(max(1.0, 2.4 * math.sqrt(rows)))))
    if kind.startswith("ivf") and lists > rows:
        raise UserError(f"lists of the index is {lists}, but there are {rows} rows. Use fewer.")
    return IndexRecord(
        kind=kind,
        rows=rows,
        digest=features.digest,
        lists=lists if kind.startswith("ivf") else 0,
        bytes_per_row=_code_bytes(kind, features, config),
        probes=0,
        candidates=_CANDIDATES.get(kind, 0),
        recall=1.0,
        seed=config.seed,
    )


def _code_bytes(kind: str, features: StoredFeatures, config: IndexConfig) -> int:
    """Bytes of a row's code.

    Raises:
        UserError: a product quantiser does not fit the rows.
    """
    width = features.dimension
    if kind != "ivf_pq":
        return 0 if kind == "exact" else width
    size = config.pq_bytes or max(1, width // 8)
    if width % size:
        raise UserError(
            f"pq_bytes is {size}, which does not divide the width {width}. "
            "Use a divisor, such as an eighth of it."
        )
    if len(features) < _PQ_ROWS:
        raise UserError(
            f"ivf_pq needs {_PQ_ROWS} rows to train on, but there are {len(features)}. Use ivf_sq8."
        )
    return size


def _start(folder: Path, plan: IndexRecord) -> None:
    """Keep what is there of the same plan, unfinished or finished, and nothing else."""
    note, done = folder / "plan.json", folder / "index.json"
    if note.is_file() and read_record(note, IndexRecord) == plan:
        return
    if done.is_file() and replace(read_record(done, IndexRecord), probes=plan.probes, recall=1.0) == plan:
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    write_record(note, plan)


class _Work:
    """The steps of one index."""

    def __init__(
        self,
        folder: Path,
        features: StoredFeatures,
        config: IndexConfig,
        plan: IndexRecord,
        progress: Progress,
    ) -> None:
        self.folder, self.features, self.config, self.plan = folder, features, config, plan
        self.progress, self.faiss = progress, faiss()

    def inverted_file(self) -> None:
        """Train, code the pieces, join them."""
        trained = self.folder / "trained.faiss"
        if not trained.is_file():
            with _step(self.progress, f"training {self.plan.lists:,} lists", 1):
                self._write(self._trained(), trained)
        size = self.config.piece_rows
        pieces = [self.folder / f"piece-{start:012d}.faiss" for start in range(0, self.plan.rows, size)]
        with _step(self.progress, "coding rows", self.plan.rows) as advance:
            for number, piece in enumerate(pieces):
                start, stop = number * size, min((number + 1) * size, self.plan.rows)
                if not piece.is_file():
                    index = self.faiss.read_index(str(trained))
                    self._add(index, start, stop)
                    self._write(index, piece)
                advance(stop - start)
        with _step(self.progress, "joining lists", 1):
            self._join(pieces)

    def graph(self) -> None:
        """A graph over 8-bit values, whose ranges are trained on a sample."""
        library = self.faiss
        index = library.IndexHNSWSQ(
            self.features.dimension,
            library.ScalarQuantizer.QT_8bit,
            self.config.links,
            library.METRIC_INNER_PRODUCT,
        )
        index.train(_sample(self.features, _QUANTIZER_ROWS, self.config.seed).numpy())
        with _step(self.progress, "linking rows", self.plan.rows) as advance:
            for chunk in self.features.chunks(_CHUNK_ROWS):
                index.add(chunk.numpy())
                advance(len(chunk))
        self._write(index, self.folder / "knn.index")

    def _trained(self) -> Any:
        """An inverted file without rows."""
        plan, dimension = self.plan, self.features.dimension
        code = "SQ8" if plan.kind == "ivf_sq8" else f"PQ{plan.bytes_per_row}"
        index = self.faiss.index_factory(
            dimension, f"IVF{plan.lists},{code}", self.faiss.METRIC_INNER_PRODUCT
        )
        index.cp.seed, index.cp.niter = plan.seed + 1, 8
        index.cp.min_points_per_centroid = 1  # small caches are allowed
        wanted = max(_ROWS_PER_CENTROID * plan.lists, _QUANTIZER_ROWS)
        if plan.kind == "ivf_pq":
            index.do_polysemous_training = False  # an order of codes that is not used here
            index.pq.cp.max_points_per_centroid, index.pq.cp.niter = _ROWS_PER_CENTROID, 10
        index.train(_sample(self.features, wanted, plan.seed).numpy())
        return index

    def _add(self, index: Any, start: int, stop: int) -> None:
        """Code some rows."""
        for chunk in self.features.chunks(_CHUNK_ROWS, start, stop):
            numbers = torch.arange(start, start + len(chunk)).numpy()
            index.add_with_ids(chunk.numpy(), numbers)
            start += len(chunk)

    def _join(self, pieces: list[Path]) -> None:
        """One file of lists, in the order of the rows."""
        ondisk = importlib.import_module("faiss.contrib.ondisk")
        (self.folder / "lists.ivfdata").unlink(missing_ok=True)
        index = self.faiss.read_index(str(self.folder / "trained.faiss"))
        ondisk.merge_ondisk(index, [str(piece) for piece in pieces], str(self.folder / "lists.ivfdata"))
        lists = self.faiss.downcast_InvertedLists(index.invlists)
        lists.filename = "lists.ivfdata"  # the folder may move
        self._write(index, self.folder / "knn.index")

    def _write(self, index: Any, path: Path) -> None:
        """An index file, as a whole or not at all."""
        unfinished = path.with_suffix(".tmp")
        self.faiss.write_index(index, str(unfinished))
        unfinished.replace(path)


def calibrated(index: Any, features: StoredFeatures, config: IndexConfig, plan: IndexRecord) -> IndexRecord:
    """The plan with the fewest probes that reach the wanted recall; all of them where none do.

    Doubled until it is reached, then halved in between, to an eighth of the number: a query's time grows with
    its probes, so that is what the last of them may cost.
    """
    generator = torch.Generator().manual_seed(plan.seed)
    asking = torch.randperm(plan.rows, generator=generator)[: config.queries]
    queries = features.rows(asking)
    k = min(_NEIGHBOURS + 1, plan.rows)
    _, wanted = exact_neighbours(features, queries, k)
    most = most_probes(index)
    probes = plan.candidates if plan.kind == "hnsw" else min(_FEWEST_LISTS, most)

    def reached(probes: int) -> float:
        """Recall with so many."""
        found = IndexedSearch(index, features, probes, plan.candidates).search(queries, k)[1]
        return recall_of(found, wanted, asking)

    too_few = 0
    while (recall := reached(probes)) < config.recall and probes < most:
        too_few, probes = probes, min(2 * probes, most)
    while recall >= config.recall and probes - too_few > max(probes // 8, 1) and too_few:
        middle = (too_few + probes) // 2
        if (found := reached(middle)) >= config.recall:
            probes, recall = middle, found
        else:
            too_few = middle
    return replace(plan, probes=probes, recall=round(recall, 4))


def recall_of(
    found: Int[Tensor, "B K"], wanted: Int[Tensor, "B K"], itself: Int[Tensor, " B"] | None = None
) -> float:
    """Share of the wanted rows that were found, without the rows that asked."""
    asked = wanted >= 0 if itself is None else wanted != itself.unsqueeze(1)
    hits = (wanted.unsqueeze(2) == found.unsqueeze(1)).any(2) & asked
    return float(hits.sum() / asked.sum().clamp(min=1))


def _sample(features: StoredFeatures, count: int, seed: int) -> Float[Tensor, "N E"]:
    """Rows drawn without replacement, in their order; all where there are no more."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randperm(len(features), generator=generator)[:count].sort().values
    sample = torch.empty(len(drawn), features.dimension)
    for part, numbers in zip(sample.split(_CHUNK_ROWS), drawn.split(_CHUNK_ROWS), strict=True):
        part.copy_(features.rows(numbers))
    return sample


@contextmanager
def _step(progress: Progress, name: str, total: int) -> Iterator[Any]:
    """A line of the progress display; yields what advances it."""
    task = progress.add_task(name, total=total)
    yield lambda count: progress.advance(task, count)
    progress.update(task, completed=total)
