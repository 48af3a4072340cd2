"""The verbs ``cache search`` and ``cache info``: which stored pictures lie nearest, and what a cache holds.

Pictures are asked about through the encoder that built the cache; with ImageBind also sounds, texts and all
other files it takes; or embeddings from a feature file.

Dimensions: B queries, E width.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float
from rich.console import Console
from torch import Tensor

from imagebind_llm.cache.contact_sheet import Line, write_sheet
from imagebind_llm.cache.encoders import encoder_config, picture_encoder
from imagebind_llm.cache.listing import open_picture
from imagebind_llm.cache.records import EncoderRecord, IndexRecord, PartRecord, read_record
from imagebind_llm.cache.rows import open_features
from imagebind_llm.cache.visual_cache import CacheConfig, VisualCache, read_manifest
from imagebind_llm.imagebind.model import ImageBindModel
from imagebind_llm.processing.processor import ImageBindProcessor
from llama_adapter.errors import UserError
from llama_adapter.vision import VisionConfig

_PICTURES = "vision"


@dataclass(kw_only=True)
class SearchConfig:
    """Find the stored pictures nearest to files.

    Raises:
        UserError: nothing asks, or both files and features do.
    """

    cache: str
    """Folder of the cache, or an index file such as the official knn.index."""
    query: list[str] = field(default_factory=list)
    """Files that ask, or texts; repeat the option for several."""
    features: str | None = None
    """Instead of files: a .npy, .safetensors or .pt file of embeddings (rows, width)."""
    modality: str = _PICTURES
    """What the files are, where an ImageBind model reads them: vision, text, audio, depth, thermal, imu or
    point."""
    imagebind: str | None = None
    """Folder of the ImageBind model that reads the files."""
    vision: VisionConfig | None = None
    """The other encoder, of pictures alone, where one built the cache."""
    search: CacheConfig = field(default_factory=CacheConfig)
    """How many neighbours, and how far to look."""
    output: str | None = None
    """A JSONL file to write the neighbours to."""
    contact_sheet: str | None = None
    """A PNG file to draw the pictures in: each query's line with its neighbours."""

    def __post_init__(self) -> None:
        """Checks the values."""
        if bool(self.query) == bool(self.features):
            raise UserError(
                f"query is {self.query} and features is {self.features!r}. "
                "Give files that ask, or a file of features."
            )


@dataclass(kw_only=True)
class InfoConfig:
    """Print what a visual cache holds."""

    cache: str
    """Folder of the cache."""


def search(config: SearchConfig) -> None:
    """The verb ``cache search``.

    Raises:
        UserError: a file cannot be used, or the cache was built with another encoder.
    """
    names, embeddings, encoder = _asking(config)
    cache = VisualCache.open(config.cache, config.search, encoder)
    similarities, rows, _ = cache.search(torch.nn.functional.normalize(embeddings, dim=-1))  # cosines
    found = [
        {
            "query": name,
            "neighbours": [
                {"item": cache.name(int(row)), "row": int(row), "similarity": round(float(similarity), 6)}
                for similarity, row in zip(similarities[at], rows[at], strict=True)
                if row >= 0
            ],
        }
        for at, name in enumerate(names)
    ]
    _print(found)
    if config.output:
        text = "".join(json.dumps(line) + "\n" for line in found)
        Path(config.output).write_text(text, encoding="utf-8")
    if config.contact_sheet:
        _draw(config, found)


def info(config: InfoConfig) -> None:
    """The verb ``cache info``.

    Raises:
        UserError: there is no cache, or its files are damaged.
    """
    path, console = Path(config.cache), Console(soft_wrap=True, markup=False, highlight=False)
    manifest = read_manifest(path)
    parts = [read_record(part, PartRecord) for part in sorted(path.glob("part-*/part.json"))]
    console.print(f"encoder    {manifest.encoder or 'not named'}")
    console.print(f"items      {manifest.items:,} of {manifest.root}")
    console.print(f"parts      {len(parts)} of {manifest.shards} complete")
    console.print(
        f"rows       {sum(part.rows for part in parts):,} x {manifest.dimension}, float16, {manifest.metric}"
    )
    console.print(f"left out   {sum(part.skipped for part in parts):,}")
    note = path / "index" / "index.json"
    if not note.is_file():
        console.print("index      none yet")
        return
    index = read_record(note, IndexRecord)
    how = f", {index.lists:,} lists" if index.lists else ""
    asked = f", {index.probes} probes and {index.candidates} candidates" if index.probes else ""
    console.print(f"index      {index.kind}{how}{asked}, recall {index.recall:.1%} of 10 exact neighbours")


def _asking(config: SearchConfig) -> tuple[list[str], Float[Tensor, "B E"], EncoderRecord | None]:
    """Names and embeddings of what asks, and whose they are."""
    if config.features:
        embeddings = open_features(Path(config.features)).float()
        return [f"{Path(config.features).name}:{row}" for row in range(len(embeddings))], embeddings, None
    vision = encoder_config(config.imagebind, config.vision)
    encoder = picture_encoder(vision)
    if config.modality == _PICTURES:
        pixels = torch.stack([encoder.pixels(path) for path in config.query])
        return config.query, encoder.encode(pixels), encoder.record
    if vision.kind != "imagebind":
        raise UserError(
            f"modality is {config.modality!r}, but {vision.kind} encodes pictures alone. "
            "Name an ImageBind model."
        )
    model = ImageBindModel.from_pretrained(vision.name_or_path, modalities=[config.modality]).eval()
    processor = ImageBindProcessor.from_pretrained(vision.name_or_path)
    with torch.no_grad():
        found = model(processor({config.modality: config.query})).embeddings[config.modality]
    return config.query, found.float(), encoder.record


def _print(found: list[dict]) -> None:
    """A line per neighbour, under a line per query."""
    console = Console(soft_wrap=True, markup=False, highlight=False)
    for line in found:
        console.print(line["query"])
        for neighbour in line["neighbours"]:
            console.print(f"  {neighbour['similarity']:+.4f}  {neighbour['item']}")


def _draw(config: SearchConfig, found: list[dict]) -> None:
    """The contact sheet."""
    if Path(config.cache).is_file():
        raise UserError(
            "An index file names no pictures, so there is nothing to draw. Leave contact_sheet out."
        )
    root = Path(read_manifest(Path(config.cache)).root)
    shows = config.query and config.modality == _PICTURES
    lines = []
    for line in found:
        neighbours = line["neighbours"]
        lines.append(
            Line(
                asking=Path(line["query"]) if shows else line["query"],
                pictures=[open_picture(root, neighbour["item"]) for neighbour in neighbours],
                labels=[f"{n['similarity']:.3f} {Path(n['item']).stem}" for n in neighbours],
            )
        )
    write_sheet(lines, Path(config.contact_sheet or ""))
