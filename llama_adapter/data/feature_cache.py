"""Features of frozen encoders: computed once, kept on disk, mapped from there in every epoch and run.

An item's key is a hash of its content, and the folder is named by a hash of all that turns content into
features (encoder weights and settings, transform, storage type). So a changed file, encoder or transform
never finds old features, and a renamed file does find its own. What is unusual: several processes share the
work batch by batch through locks that die with their process; a killed one costs the batch it was computing.
What encodes and what an item is are the caller's: a function from items to tensors.

Dimensions: B items of a batch, N tokens of one item, W width.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from filelock import FileLock, Timeout
from jaxtyping import Float
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from llama_adapter.data.identity import Item, content_key, json_digest
from llama_adapter.data.tensor_store import TensorStore, readable_bytes
from llama_adapter.errors import UserError

log = logging.getLogger(__name__)

Compute: TypeAlias = Callable[[list[Any]], Tensor | Sequence[Tensor]]
"""From B items to features (B, N, W), or to B tensors (N, W) with N of their own."""

_HASHING_THREADS = 8
_WORK_LOCKS = 64  # batches are spread over so many; two on one lock only wait for each other


@dataclass(frozen=True, kw_only=True)
class FeatureIdentity:
    """Everything besides an item that decides its features, as JSON values."""

    encoder: Mapping[str, Any]
    """Name, settings and weights: see ``identity.encoder_identity``."""

    transform: Mapping[str, Any]
    """Parameters of what turns a file into the encoder's input."""

    dtype: Literal["float32", "float16", "bfloat16"] = "float16"
    """How features are kept; ``tensor_store.DTYPES`` states what rounding costs."""

    def values(self) -> dict[str, Any]:
        """As one JSON value."""
        return {"encoder": dict(self.encoder), "transform": dict(self.transform)}


class StoredFeatures(Sequence[Tensor]):
    """The features of items, in their order; each is mapped from the file when it is asked for."""

    def __init__(self, store: TensorStore, keys: Sequence[bytes]) -> None:
        self.store, self.keys = store, list(keys)

    def __len__(self) -> int:
        """Number of items."""
        return len(self.keys)

    def __getitem__(self, index: Any) -> Any:
        """Features (N, W) of one item, or of a slice of items.

        Raises:
            UserError: the stored values are damaged.
        """
        if isinstance(index, slice):
            return StoredFeatures(self.store, self.keys[index])
        features = self.store.get(self.keys[index])
        if features is None:
            raise UserError(
                f"The features of item {index} in {str(self.store.folder)!r} are damaged. "
                "Use FeatureCache.verify(repair=True), then FeatureCache.features, which computes them anew."
            )
        return features

    @property
    def num_bytes(self) -> int:
        """Size of the features of these items."""
        return sum(self.store.item_bytes(key) for key in set(self.keys))


class FeatureTable(Mapping[str, Tensor]):
    """Features by name, such as the path that a record gives for its image."""

    def __init__(self, names: Sequence[str], features: Sequence[Tensor]) -> None:
        self._places = {name: place for place, name in enumerate(names)}
        self._features = features

    def __getitem__(self, name: str) -> Float[Tensor, "N W"]:
        """Features of one name."""
        return self._features[self._places[name]]

    def __iter__(self) -> Iterator[str]:
        """All names."""
        return iter(self._places)

    def __len__(self) -> int:
        """Number of names."""
        return len(self._places)


class FeatureCache:
    """Features of one encoder with one transform.

    Args:
        folder: holds one folder per identity.
        identity: what decides the features besides the items.
    """

    def __init__(self, folder: str | Path, identity: FeatureIdentity) -> None:
        name = json_digest([identity.values(), identity.dtype])[:16]
        self.store = TensorStore(Path(folder) / name, identity.values(), identity.dtype)

    @property
    def size(self) -> int:
        """Bytes on disk, all items together."""
        return self.store.num_bytes

    def verify(self, repair: bool = False) -> list[bytes]:
        """Read everything; returns the keys of damaged items, which ``repair`` takes out."""
        return self.store.verify(repair)

    def features(
        self,
        items: Sequence[Item],
        compute: Compute,
        batch_size: int = 32,
        progress: bool = True,
    ) -> StoredFeatures:
        """The features of items; those that are missing are computed in batches, without gradients.

        Other processes that ask for the same items share the work.

        Args:
            items: paths, bytes or records.
            compute: the encoder, with its transform.
            batch_size: items of one call of ``compute``.
            progress: show a bar and how large the cache is going to be.

        Raises:
            UserError: a file cannot be read, ``compute`` returns something else, or the disk is too small.
        """
        if batch_size < 1:
            raise UserError(f"batch_size is {batch_size}. Use at least 1.")
        with ThreadPoolExecutor(_HASHING_THREADS) as pool:
            keys = list(pool.map(content_key, items))
        self.store.refresh()
        missing = {key: item for key, item in zip(keys, items, strict=True) if key not in self.store}
        if missing:
            _Filling(self.store, compute, len(missing), progress).run(missing, batch_size)
        log.info(
            "features: %d of %d items computed, %s in %s",
            len(missing),
            len(set(keys)),
            readable_bytes(self.size),
            self.store.folder,
        )
        return StoredFeatures(self.store, keys)

    def table(
        self, paths: Sequence[str], compute: Compute, batch_size: int = 32, progress: bool = True
    ) -> FeatureTable:
        """``features`` by path, for ``FeatureCollator``."""
        names = list(dict.fromkeys(paths))
        return FeatureTable(names, self.features(names, compute, batch_size, progress))


class _Filling:
    """Computes what is missing in a store."""

    def __init__(self, store: TensorStore, compute: Compute, count: int, progress: bool) -> None:
        self._store, self._compute, self._count = store, compute, count
        self._announced = False
        self._progress = Progress(
            TextColumn("features"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True, quiet=not progress),
            disable=not progress,
        )
        self._locks = store.folder / "work"
        self._locks.mkdir(exist_ok=True)

    def run(self, missing: dict[bytes, Any], batch_size: int) -> None:
        """Compute batches that no other process is at; then wait for those, and do what they left."""
        pairs = iter(missing.items())
        batches = list(iter(lambda: list(islice(pairs, batch_size)), []))
        with self._progress as progress:
            task = progress.add_task("features", total=self._count)
            for wait in (False, True):
                left = list[Any]()
                for batch in batches:
                    with self._claimed(batch[0][0], wait) as claimed:
                        if claimed:
                            self._fill(batch)
                            progress.advance(task, len(batch))
                        else:
                            left.append(batch)
                batches = left

    @contextmanager
    def _claimed(self, key: bytes, wait: bool) -> Iterator[bool]:
        """Whether the batch that starts with ``key`` is this process's while the context lasts."""
        lock = FileLock(self._locks / f"{key[0] % _WORK_LOCKS}.lock")
        try:
            lock.acquire(blocking=wait)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def _fill(self, batch: list[tuple[bytes, Any]]) -> None:
        """Compute and store the items of a batch that nobody has stored meanwhile."""
        self._store.refresh()
        left = {key: item for key, item in batch if key not in self._store}
        if not left:
            return
        with torch.no_grad():
            output = self._compute(list(left.values()))
        features = _checked(output, len(left))
        if not self._announced:
            self._announce(features)
        self._store.append(dict(zip(left, features, strict=True)))

    def _announce(self, features: list[Tensor]) -> None:
        """Say how large it will be, from the first batch; refuse when the disk is too small."""
        self._announced = True
        needed = round(sum(x.numel() for x in features) * self._store.itemsize / len(features) * self._count)
        self._store.check_space(needed, f"The features of {self._count:,} items")
        self._progress.console.print(
            f"Features of {self._count:,} items: about {readable_bytes(needed)} in {self._store.folder}",
            highlight=False,
            soft_wrap=True,
        )


def _checked(output: Any, count: int) -> list[Tensor]:
    """One tensor (N, W) per item.

    Raises:
        UserError: ``compute`` returned something else.
    """
    features = list(output) if isinstance(output, Tensor | Sequence) else []
    shapes = [tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__ for x in features]
    if len(features) != count or any(not isinstance(x, Tensor) or x.dim() != 2 for x in features):
        raise UserError(
            f"The encoder returned {shapes or type(output).__name__} for {count} items. "
            "Use a function that returns one tensor (tokens, width) per item, or all as one tensor."
        )
    return features
