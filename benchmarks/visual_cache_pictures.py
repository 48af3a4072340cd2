"""Indexes of a visual cache on embeddings of real pictures: recall, and the blended embedding.

Pictures of several data sets (photographs, diagrams, maps) pass EfficientNet-Lite0, whose weights a package
holds (``examples/efficientnet_lite0.py``). Every tenth asks, the others are stored. They are too few
to be timed.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.ratios import bootstrap_totals
from benchmarks.results import Row
from benchmarks.visual_cache import FOLDER
from imagebind_llm.cache.build import BuildConfig, ReindexConfig, build, index
from imagebind_llm.cache.encoders import picture_encoder
from imagebind_llm.cache.indexing import IndexConfig, Kind
from imagebind_llm.cache.listing import listing
from imagebind_llm.cache.records import IndexRecord, read_record
from imagebind_llm.cache.visual_cache import CacheConfig, VisualCache
from llama_adapter.errors import UserError
from llama_adapter.vision import VisionConfig

DATA = Path(os.environ.get("LLAMA_ADAPTER_SHARED", "../shared")) / "data"
"""Pictures that are not part of this repository."""
INDEXES: tuple[Kind, ...] = ("ivf_sq8", "ivf_pq", "hnsw")
VISION = VisionConfig(
    kind="timm", name_or_path="tf_efficientnet_lite0", weights="models/efficientnet_lite0.safetensors"
)
_EVERY, _BATCH = 10, 32


def run(
    minimum: int = 1,
    maximum: int = 1,
    folder: Path = FOLDER,
    data: Path = DATA,
    vision: VisionConfig = VISION,
    indexes: Sequence[Kind] = INDEXES,
) -> list[Row]:
    """Encode what is not encoded yet, and compare indexes with exact search.

    Args:
        minimum: only there because every benchmark takes it.
        maximum: likewise.
        folder: where the cache lies.
        data: folder of pictures.
        vision: the encoder.
        indexes: kinds to compare.

    Raises:
        UserError: the pictures or the encoder's weights are not there.
    """
    if not data.is_dir():
        raise UserError(
            f"{str(data)!r} is not there. Set LLAMA_ADAPTER_SHARED to the folder that holds data."
        )
    names = [place.name for place in listing(data).places]
    folder.mkdir(parents=True, exist_ok=True)
    stored = folder / "pictures.txt"
    kept = [str((data / name).resolve()) for at, name in enumerate(names) if at % _EVERY]
    stored.write_text("\n".join(kept) + "\n", encoding="utf-8")
    cache = folder / "pictures"
    build(BuildConfig(cache=str(cache), source=str(stored), vision=vision, index=IndexConfig(kind="exact")))
    queries = torch.cat(list(_embeddings(data, names[::_EVERY], vision)))
    return [row for kind in indexes for row in _measured(cache, queries, kind)]


def _embeddings(data: Path, names: list[str], vision: VisionConfig) -> Iterator[Float[Tensor, "B E"]]:
    """Of the pictures that ask, of length 1."""
    encoder = picture_encoder(vision)
    for start in range(0, len(names), _BATCH):
        pixels = [encoder.pixels(str(data / name)) for name in names[start : start + _BATCH]]
        yield torch.nn.functional.normalize(encoder.encode(torch.stack(pixels)), dim=-1)


def _measured(cache: Path, queries: Float[Tensor, "B E"], kind: Kind) -> list[Row]:
    """What one kind of index finds."""
    index(ReindexConfig(cache=str(cache), index=IndexConfig(kind=kind)))
    record = read_record(cache / "index" / "index.json", IndexRecord)
    ours, exact = VisualCache.open(cache), VisualCache.open(cache, CacheConfig(exact=True))
    found, wanted = ours.search(queries)[1], exact.search(queries)[1]
    figures = {
        "recall of 10 neighbours": (found.unsqueeze(2) == wanted.unsqueeze(1)).any(1).float().mean(1),
        "cosine of the blended embedding": (ours.blend(queries) * exact.blend(queries)).sum(-1),
    }
    return [
        Row(
            measure=f"{record.rows:,} pictures, {kind}: {name}",
            against="exact search",
            **bootstrap_totals([1.0] * len(values), values.tolist()).figures(),
            facts={"lists": record.lists, "probes": record.probes, "least": float(values.min())},
        )
        for name, values in figures.items()
    ]
