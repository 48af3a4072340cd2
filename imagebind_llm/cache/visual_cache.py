"""``VisualCache``: embeddings of other modalities are drawn towards those of pictures that lie near them.

Training-free: the nearest pictures' embeddings, weighted by a softmax of their similarities, are blended with
the embedding that asked. A cache is a folder that ``cache build`` made, or an index file like the official
``knn.index``. What is unusual: with a folder the similarities and embeddings are always those of the stored
features; an index only proposes rows. Source: docs/sources/llama-adapter.md#arithmetic, 13.

Dimensions: B queries, K neighbours, E width of the shared space.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from imagebind_llm.cache.exact import ExactSearch
from imagebind_llm.cache.faiss_index import ForeignSearch, IndexedSearch, open_index
from imagebind_llm.cache.parts import StoredFeatures
from imagebind_llm.cache.records import FORMAT, METRIC, EncoderRecord, IndexRecord, Manifest, read_record
from llama_adapter.errors import UserError
from llama_adapter.limits import Count, Positive


@dataclass(kw_only=True)
class CacheConfig:
    """How a cache is asked, and what its answer does. The defaults are the published ones.

    Raises:
        UserError: a value is out of its range.
    """

    top_k: Count = 10
    """Neighbours per query."""
    temperature: Positive = 20.0
    """Factor of the similarities before the softmax; higher ones trust the nearest more."""
    weight: float = 0.5
    """Of the cache in the blend: 0 is the embedding alone, 1 the neighbours alone."""
    exact: bool = False
    """Compare with all rows, although there is an index."""
    probes: Count | None = None
    """Lists of the index visited per query, or the width of the walk through a graph; None takes what was
    found when the index was built."""
    candidates: Count | None = None
    """Rows that the index proposes, of which the stored embeddings decide; None as above."""

    def __post_init__(self) -> None:
        """Checks the values."""
        for name in ("top_k", "probes", "candidates"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name} of the cache is {value}. Use at least 1.")
        if not 0 <= self.weight <= 1:
            raise UserError(f"weight of the cache is {self.weight}. Use 0 to 1.")


@runtime_checkable
class Search(Protocol):
    """Something that finds neighbours."""

    def search(
        self, queries: Float[Tensor, "B E"], k: int
    ) -> tuple[Float[Tensor, "B K"], Int[Tensor, "B K"], Float[Tensor, "B K E"]]:
        """Similarities (descending), rows and their embeddings."""


class VisualCache:
    """Stored embeddings of pictures. Made by ``open``."""

    def __init__(self, search: Search, rows: int, dimension: int, config: CacheConfig) -> None:
        self._search, self._rows, self.dimension, self.config = search, rows, dimension, config
        self.encoder: EncoderRecord | None = None
        self.features: StoredFeatures | None = None

    @classmethod
    def open(
        cls, path: str | Path, config: CacheConfig | None = None, encoder: EncoderRecord | None = None
    ) -> "VisualCache":
        """A cache from disk.

        Args:
            path: a folder of ``cache build``, or an index file.
            config: how it is asked.
            encoder: which encoder's embeddings are going to ask: see ``encoders``. It must be that of the
                cache. None does not check; nor can an index file be checked, or features of unknown origin.

        Raises:
            UserError: it is not complete, is damaged, or was built with another encoder.
        """
        path, config = Path(path), config or CacheConfig()
        if path.is_file():
            index = open_index(path)
            if not index.ntotal or not index.is_trained:
                raise UserError(f"The index {str(path)!r} holds no rows. Use one that rows were added to.")
            return cls(ForeignSearch(index, config.probes), int(index.ntotal), int(index.d), config)
        manifest = read_manifest(path)
        _check_encoder(manifest, encoder, path)
        features = StoredFeatures(path, manifest.shards, manifest.dimension)
        cache = cls(open_search(path, features, config), len(features), manifest.dimension, config)
        cache.encoder, cache.features = manifest.encoder, features
        return cache

    def __len__(self) -> int:
        """Number of stored embeddings."""
        return self._rows

    def name(self, row: int) -> str:
        """The item of a row, as ``cache build`` named it; an index file knows none."""
        return self.features.name(row) if self.features else f"row {row}"

    @torch.no_grad()
    def search(
        self, embeddings: Float[Tensor, "B E"], k: int | None = None
    ) -> tuple[Float[Tensor, "B K"], Int[Tensor, "B K"], Float[Tensor, "B K E"]]:
        """The nearest rows of each embedding.

        Args:
            embeddings: of any length, which scales the similarities; any floating type on any device.
            k: how many; None takes ``top_k``, and fewer come from a cache that has fewer.

        Returns:
            Similarities (inner products, descending), rows, and their embeddings, in float32 on the device of
            ``embeddings``. In an index file that visits too few rows the rest is -inf, -1 and zeros.

        Raises:
            UserError: the embeddings have another width, or values that are not finite.
        """
        if embeddings.ndim != 2 or embeddings.shape[1] != self.dimension:
            raise UserError(
                f"The cache holds embeddings of width {self.dimension}; those that ask have the shape "
                f"{tuple(embeddings.shape)}. Use (records, {self.dimension}) of the encoder that built it."
            )
        queries = embeddings.detach().float().cpu()
        if not bool(queries.isfinite().all()):
            raise UserError("An embedding that asks the cache is not finite. Check the input it was made of.")
        k = min(self.config.top_k if k is None else k, self._rows)
        similarities, rows, features = self._search.search(queries, k)
        device = embeddings.device
        return similarities.to(device), rows.to(device), features.to(device)

    def blend(self, embeddings: Float[Tensor, "B E"]) -> Float[Tensor, "B E"]:
        """Embeddings drawn towards their neighbours, of length 1.

        Args:
            embeddings: mixes as ``mix`` gives them: not normalised.

        Raises:
            UserError: as in ``search``.
        """
        similarities, _, features = self.search(embeddings)
        return blended(embeddings, similarities, features, self.config)


def blended(
    embeddings: Float[Tensor, "B E"],
    similarities: Float[Tensor, "B K"],
    features: Float[Tensor, "B K E"],
    config: CacheConfig,
) -> Float[Tensor, "B E"]:
    """What neighbours make of embeddings; those of a similarity of -inf do not count."""
    # where an index file found nothing at all, the embedding stays alone
    shares = (config.temperature * similarities).softmax(-1).nan_to_num(0.0)
    near = functional.normalize(torch.einsum("bk,bke->be", shares, features), dim=-1)
    result = config.weight * near + (1 - config.weight) * embeddings.float()
    return functional.normalize(result, dim=-1).to(embeddings.dtype)


def read_manifest(path: Path) -> Manifest:
    """What a cache is made of.

    Raises:
        UserError: there is no cache, or one of another format.
    """
    manifest = read_record(path / "cache.json", Manifest)
    if manifest.format != FORMAT:
        raise UserError(
            f"{str(path)!r} has the format {manifest.format}; this program knows {FORMAT}. Build it again."
        )
    if min(manifest.dimension, manifest.shards, manifest.block) < 1 or manifest.metric != METRIC:
        raise UserError(f"{str(path / 'cache.json')!r} holds {manifest}, which cannot be. Restore the file.")
    return manifest


def open_search(path: Path, features: StoredFeatures, config: CacheConfig) -> Search:
    """The way a folder is searched.

    Raises:
        UserError: its index is missing, or belongs to other rows.
    """
    if config.exact:
        return ExactSearch(features)
    folder = path / "index"
    if not (folder / "index.json").is_file():
        raise UserError(f"{str(path)!r} has no index yet. Run 'llama-adapter cache index --cache {path}'.")
    record = read_record(folder / "index.json", IndexRecord)
    if (record.rows, record.digest) != (len(features), features.digest):
        raise UserError(
            f"The index of {str(path)!r} was made of {record.rows:,} other rows than the {len(features):,} "
            f"that are there. Run 'llama-adapter cache index --cache {path}'."
        )
    if record.kind == "exact":
        return ExactSearch(features)
    index = open_index(folder / "knn.index")
    if (index.ntotal, index.d) != (len(features), features.dimension):
        raise UserError(
            f"{str(folder / 'knn.index')!r} holds {int(index.ntotal):,} rows of width {int(index.d)}, but "
            f"the cache {len(features):,} of width {features.dimension}. "
            f"Run 'llama-adapter cache index --cache {path}'."
        )
    probes = config.probes or record.probes
    return IndexedSearch(index, features, probes, config.candidates or record.candidates)


def _check_encoder(manifest: Manifest, encoder: EncoderRecord | None, path: Path) -> None:
    """Refuse embeddings of another space."""
    if encoder is None or manifest.encoder is None or encoder.space == manifest.encoder.space:
        return
    raise UserError(
        f"The cache {str(path)!r} was built with {manifest.encoder}, but {encoder} is going to ask it. "
        "Use that encoder, or build a cache with this one."
    )
