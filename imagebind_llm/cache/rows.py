"""From items to blocks of embeddings: pictures through an encoder, or features from files.

A block is always made of the same items, whichever process does it and wherever it starts: so a restarted or
divided build gives the same bytes. An item that cannot be used is left out by its name; the rest of its block
is encoded without it.

Dimensions: N rows, E width.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from imagebind_llm.cache.encoders import PictureEncoder
from imagebind_llm.cache.listing import FEATURES, Listing
from imagebind_llm.cache.parts import Block
from imagebind_llm.processing.arrays import read_array
from llama_adapter.errors import UserError

_BLOCKS_AHEAD = 2
_FEATURE_BLOCK = 4096


class Rows(ABC):
    """Items in a fixed order, and what becomes of them."""

    items: int
    """How many."""
    digest: str
    """SHA-256 of their names."""
    dimension: int
    """E."""
    block: int
    """Items of a block."""

    @abstractmethod
    def blocks(self, first: int, stop: int) -> Iterator[Block]:
        """Blocks from ``first`` up to ``stop``, in order."""

    @property
    def total_blocks(self) -> int:
        """Number of blocks; the last one may have fewer items."""
        return -(-self.items // self.block)

    def range_of(self, block: int) -> range:
        """The items of a block."""
        return range(block * self.block, min((block + 1) * self.block, self.items))


class PictureRows(Rows):
    """Pictures, decoded by threads while the encoder works."""

    def __init__(self, pictures: Listing, encoder: PictureEncoder, block: int, workers: int) -> None:
        self.pictures, self.encoder, self.block, self.workers = pictures, encoder, block, workers
        self.items, self.dimension = len(pictures.places), encoder.dimension
        self.digest = _digest(place.name for place in pictures.places)

    def blocks(self, first: int, stop: int) -> Iterator[Block]:
        """Encoded pictures."""
        with ThreadPoolExecutor(self.workers) as pool:
            waiting: deque[dict[str, Future[Tensor | str]]] = deque()
            for block in range(first, stop):
                waiting.append(
                    {
                        self.pictures.places[item].name: pool.submit(self._decoded, item)
                        for item in self.range_of(block)
                    }
                )
                if len(waiting) > _BLOCKS_AHEAD:
                    yield self._encoded(waiting.popleft())
            while waiting:
                yield self._encoded(waiting.popleft())

    def _decoded(self, item: int) -> Tensor | str:
        """A picture's values, or why there are none."""
        try:
            with self.pictures.open(item) as file:
                return self.encoder.pixels(file)
        except (UserError, OSError) as error:
            return str(error)

    def _encoded(self, decoded: "dict[str, Future[Tensor | str]]") -> Block:
        """One block."""
        found = {name: future.result() for name, future in decoded.items()}
        pixels = {name: value for name, value in found.items() if isinstance(value, Tensor)}
        features = torch.zeros(0, self.dimension)
        if pixels:
            features = self.encoder.encode(torch.stack(list(pixels.values())))
        return _usable(list(pixels), features, {k: v for k, v in found.items() if isinstance(v, str)})


class FeatureRows(Rows):
    """Rows of feature files, mapped or read piece by piece."""

    block = _FEATURE_BLOCK

    def __init__(self, files: Sequence[Path]) -> None:
        self._names = [path.name for path in files]
        self._tensors = [open_features(path) for path in files]
        widths = {int(tensor.shape[1]) for tensor in self._tensors}
        if len(widths) != 1:
            raise UserError(f"The feature files have the widths {sorted(widths)}. Use files of one encoder.")
        self._starts = np.cumsum([0] + [len(tensor) for tensor in self._tensors])
        self.items, self.dimension = int(self._starts[-1]), widths.pop()
        self.digest = _digest(f"{n} {len(t)}" for n, t in zip(self._names, self._tensors, strict=True))

    def blocks(self, first: int, stop: int) -> Iterator[Block]:
        """Features as they are."""
        for block in range(first, stop):
            items = self.range_of(block)
            pieces, names = [], list[str]()
            for name, tensor, start in zip(self._names, self._tensors, self._starts.tolist(), strict=False):
                here = range(max(items.start - start, 0), min(items.stop - start, len(tensor)))
                if len(here):
                    pieces.append(tensor[here.start : here.stop].float())
                    names += [f"{name}:{row}" for row in here]
            yield _usable(names, torch.cat(pieces), {})


def feature_files(source: Path) -> list[Path]:
    """The feature files that a source is, or that a folder holds; none where it is something else."""
    if source.suffix.lower() in FEATURES:
        return [source]
    if not source.is_dir():
        return []
    return sorted(path for path in source.glob("*") if path.suffix.lower() in FEATURES)


def open_features(path: Path) -> Shaped[Tensor, "N E"]:
    """The matrix of a feature file; .npy, .safetensors and .pt are mapped. Nothing is unpickled but tensors.

    Raises:
        UserError: it cannot be read, or holds anything but one matrix of numbers.
    """
    found = read_array(path)
    if found.ndim != 2 or not found.size:
        raise UserError(
            f"{str(path)!r} has the shape {found.shape}. Use a file with one matrix (rows, width)."
        )
    if found.dtype.kind != "f":
        raise UserError(
            f"{str(path)!r} holds values of the type {found.dtype}. Use fractions, as encoders give."
        )
    return torch.from_numpy(found)


def _usable(names: list[str], features: Float[Tensor, "N E"], skipped: dict[str, str]) -> Block:
    """A block without the rows that have no direction."""
    good = features.isfinite().all(1) & (features.norm(dim=1) > 0)
    bad = {
        name: "its embedding is zero or not finite" for name, ok in zip(names, good, strict=True) if not ok
    }
    kept = [name for name, ok in zip(names, good, strict=True) if ok]
    return Block(names=kept, features=features[good], skipped=skipped | bad)


def _digest(names: Any) -> str:
    """SHA-256 of texts in their order."""
    digest = sha256()
    for name in names:
        digest.update(name.encode() + b"\n")
    return digest.hexdigest()
