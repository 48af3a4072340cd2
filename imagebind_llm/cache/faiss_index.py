"""Indexes of faiss: opened so that their bulk stays in files, and asked for candidates.

What faiss 1.15 can map depends on the kind: the lists of an inverted
file (``IO_FLAG_MMAP``, or lists in a file of their own), the codes of a flat index and the codes and links of
a graph (``IO_FLAG_MMAP_IFC``). Centroids and tables are always in memory. One flag excludes the other.

Dimensions: B queries, C candidates, E width.
"""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from imagebind_llm.cache.exact import nearest
from imagebind_llm.cache.parts import StoredFeatures
from llama_adapter.errors import UserError
from llama_adapter.file_formats.damage import decoding
from llama_adapter.lazy import needed

_INVERTED = (b"Iw", b"Iv", b"IxPT")
"""How files of inverted lists begin, alone or behind a rotation."""


def faiss() -> Any:
    """The package.

    Raises:
        UserError: it is not installed.
    """
    return needed("faiss", "faiss-cpu", "Indexes of a visual cache", "retrieval")


def open_index(path: Path) -> Any:
    """An index file, mapped as far as its kind allows.

    Raises:
        UserError: it is missing, or is no index of faiss.
    """
    library = faiss()
    with decoding(path, "an index of faiss", "Restore the file."):
        with path.open("rb") as file:
            inverted = file.read(4).startswith(_INVERTED)
        flags = library.IO_FLAG_MMAP if inverted else library.IO_FLAG_MMAP_IFC
        index = library.read_index(str(path), flags | library.IO_FLAG_READ_ONLY)
        if inverted:
            _map_lists(library.extract_index_ivf(index), path)
    return index


def _map_lists(index: Any, path: Path) -> None:
    """Map lists that lie in a file of their own, beside the index.

    ``IO_FLAG_MMAP`` leaves such lists unmapped, and a search would then end the process. The flag that looks
    for them beside the index prints a line at each opening.
    """
    lists = faiss().downcast_InvertedLists(index.invlists)
    if not hasattr(lists, "do_mmap") or lists.ptr is not None or not lists.totsize:
        return
    file = path.parent / Path(lists.filename).name
    if not file.is_file() or file.stat().st_size < lists.totsize:
        raise UserError(f"{str(file)!r} is not there or too short. Restore it, or make the index again.")
    lists.filename, lists.read_only = str(file), True
    lists.do_mmap()


def most_probes(index: Any) -> int:
    """Where visiting more changes nothing: the lists of an inverted file, the rows of a graph; else 0."""
    inverted = faiss().try_extract_index_ivf(index)
    if inverted is not None:
        return int(inverted.nlist)
    return int(index.ntotal) if hasattr(index, "hnsw") else 0


def candidates(index: Any, queries: Float[Tensor, "B E"], count: int, probes: int) -> Int[Tensor, "B C"]:
    """Rows that an index finds near; -1 where it visits too few.

    Args:
        index: an inverted file or a graph.
        queries: of length 1 or not.
        count: candidates per query.
        probes: lists to visit, or the width of the walk through a graph.
    """
    library = faiss()
    if hasattr(index, "hnsw"):
        parameters = library.SearchParametersHNSW(efSearch=max(probes, count))
    else:
        parameters = library.SearchParametersIVF(nprobe=probes)
        # with few queries threads share the lists of each one
        index.parallel_mode = int(len(queries) < library.omp_get_max_threads())
    _, rows = index.search(queries.contiguous().numpy(), count, params=parameters)
    return torch.from_numpy(rows)


class IndexedSearch:
    """Candidates of an index, compared with the query by their stored embeddings."""

    def __init__(self, index: Any, features: StoredFeatures, probes: int, count: int) -> None:
        self.index, self.features, self.count, self.probes = index, features, count, probes

    def search(
        self, queries: Float[Tensor, "B E"], k: int
    ) -> tuple[Float[Tensor, "B K"], Int[Tensor, "B K"], Float[Tensor, "B K E"]]:
        """Similarities (descending), rows and their embeddings."""
        rows = self._enough(queries, k)
        similarities = torch.einsum("be,bce->bc", queries, self.features.rows(rows))
        similarities, rows = nearest(similarities.masked_fill(rows < 0, -torch.inf), rows, k)
        return similarities, rows, self.features.rows(rows)

    def _enough(self, queries: Float[Tensor, "B E"], k: int) -> Int[Tensor, "B C"]:
        """At least k candidates of each query, by visiting more where that is needed."""
        count = min(max(self.count, k), len(self.features))
        probes, most = self.probes, most_probes(self.index)
        rows = candidates(self.index, queries, count, probes)
        while probes < most and bool((lacking := (rows >= 0).sum(1) < k).any()):
            probes = min(2 * probes, most)
            rows[lacking] = candidates(self.index, queries[lacking], count, probes)
        return rows


class ForeignSearch:
    """An index alone, such as the official ``knn.index``: embeddings are what it can restore of its codes.

    Args:
        index: of any kind that can restore vectors.
        probes: instead of those that the file holds.
    """

    def __init__(self, index: Any, probes: int | None) -> None:
        self.index = index
        library = faiss()
        if probes is not None and (inverted := library.try_extract_index_ivf(index)) is not None:
            inverted.nprobe = min(probes, int(inverted.nlist))
        elif probes is not None and hasattr(index, "hnsw"):
            index.hnsw.efSearch = probes

    def search(
        self, queries: Float[Tensor, "B E"], k: int
    ) -> tuple[Float[Tensor, "B K"], Int[Tensor, "B K"], Float[Tensor, "B K E"]]:
        """Similarities (descending; -inf where too few were found), rows and their embeddings."""
        try:
            _, found, restored = self.index.search_and_reconstruct(queries.contiguous().numpy(), k)
        except RuntimeError as error:
            raise UserError(
                f"This index cannot give vectors back: {str(error).splitlines()[-1][-200:]}. "
                "Use one that can, such as an inverted file, or build a cache from the features."
            ) from error
        rows, features = torch.from_numpy(found), torch.from_numpy(restored)
        features = features.masked_fill((rows < 0).unsqueeze(-1), 0.0)
        # whatever distance the file holds
        similarities = torch.einsum("be,bke->bk", queries, features).masked_fill(rows < 0, -torch.inf)
        order = similarities.sort(dim=1, descending=True, stable=True).indices
        return (
            similarities.gather(1, order),
            rows.gather(1, order),
            features[torch.arange(len(order))[:, None], order],
        )
