"""Embeddings of one process on disk, and all of them together.

A part holds ``features.f16`` (rows of length 1, float16, nothing else), ``names.txt`` with ``names.idx``
(where each name ends) and ``skipped.jsonl``. ``progress.json`` says how much of each file counts: a restarted
process cuts them there and goes on, so that it writes the same bytes as one that was never stopped.
``part.json`` stands for a finished part. What is unusual: whole runs of rows are mapped, but rows here and
there are read; each page that is touched through a map would bring its neighbours, and thus the whole file,
into the process's memory.

Dimensions: N rows, B queries, C candidates, E width.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from imagebind_llm.cache.records import PartRecord, read_record, write_record, write_whole
from llama_adapter.errors import UserError
from llama_adapter.file_formats.damage import decoding

_FILES = ("features.f16", "names.txt", "names.idx", "skipped.jsonl")
_ITEM_BYTES = 2
_OFFSET_BYTES = 8
_Read = TypeVar("_Read")


@dataclass(frozen=True, kw_only=True)
class Block:
    """Consecutive items, encoded."""

    names: list[str]
    """Of the items that gave embeddings."""
    features: Float[Tensor, "N E"]
    """Their embeddings, of any length."""
    skipped: dict[str, str]
    """Name -> why an item gave none."""


def part_folder(cache: Path, shard: int, shards: int) -> Path:
    """Where the part of one process lies; shards count from 1."""
    return cache / f"part-{shard:04d}-of-{shards:04d}"


class PartWriter:
    """Adds blocks to a part. A context; what was added behind the last ``save`` is forgotten."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        progress = self._progress()
        self.blocks, self.rows, self.skipped = progress["blocks"], progress["rows"], progress["skipped"]
        self._cut(progress)
        self._files = {name: (folder / name).open("ab") for name in _FILES}

    def __enter__(self) -> "PartWriter":
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()

    @property
    def finished(self) -> bool:
        """Whether the part is complete."""
        return (self.folder / "part.json").is_file()

    def add(self, block: Block) -> None:
        """Add the next block."""
        rows = torch.nn.functional.normalize(block.features.float(), dim=-1)
        names = [name.replace("\n", " ").encode() for name in block.names]
        ends = self._files["names.txt"].tell() + np.cumsum([len(name) + 1 for name in names], dtype="<i8")
        self._files["features.f16"].write(rows.half().numpy().astype("<f2", copy=False).tobytes())
        self._files["names.txt"].write(b"".join(name + b"\n" for name in names))
        self._files["names.idx"].write(ends.astype("<i8").tobytes())
        for name, reason in block.skipped.items():
            line = json.dumps({"item": name, "reason": reason}) + "\n"
            self._files["skipped.jsonl"].write(line.encode())
        self.blocks, self.rows = self.blocks + 1, self.rows + len(names)
        self.skipped += len(block.skipped)

    def save(self) -> None:
        """What was added so far is kept from now on."""
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        sizes = {name: file.tell() for name, file in self._files.items()}
        progress = {"blocks": self.blocks, "rows": self.rows, "skipped": self.skipped, **sizes}
        write_whole(self.folder / "progress.json", json.dumps(progress) + "\n")

    def finish(self) -> None:
        """The part is complete."""
        self.save()
        with (self.folder / "features.f16").open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        write_record(
            self.folder / "part.json", PartRecord(rows=self.rows, skipped=self.skipped, digest=digest)
        )

    def _cut(self, progress: dict[str, int]) -> None:
        """Forget what was not saved."""
        for name in _FILES:
            path = self.folder / name
            path.touch()
            if path.stat().st_size < progress[name]:
                raise UserError(
                    f"{str(path)!r} is shorter than its progress.json says. "
                    "Delete the folder and build again."
                )
            os.truncate(path, progress[name])

    def _progress(self) -> dict[str, int]:
        """What an earlier process left."""
        path = self.folder / "progress.json"
        nothing = dict.fromkeys(("blocks", "rows", "skipped", *_FILES), 0)
        if not path.is_file():
            return nothing
        try:
            found: dict[str, int] = json.loads(path.read_text(encoding="utf-8"))
            counts = {name: int(found[name]) for name in nothing}
            if min(counts.values()) < 0:
                raise ValueError("counts below 0")
            return counts
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(
                f"{str(path)!r} is damaged: {error}. Delete the folder {str(self.folder)!r} and build again."
            ) from error


class _Part:
    """A finished part, open for reading."""

    def __init__(self, folder: Path, dimension: int) -> None:
        self.folder = folder
        self.record = read_record(folder / "part.json", PartRecord)
        self.row_bytes = dimension * _ITEM_BYTES
        for name, row_bytes in (("features.f16", self.row_bytes), ("names.idx", _OFFSET_BYTES)):
            with decoding(folder / name, "rows of the cache", "Build the cache again."):
                size = (folder / name).stat().st_size
            if size != self.record.rows * row_bytes:
                raise UserError(
                    f"{str(folder / name)!r} has {size:,} bytes; {self.record.rows:,} rows of width "
                    f"{dimension} have {self.record.rows * row_bytes:,}. Build the cache again."
                )
        self._descriptor = os.open(folder / "features.f16", os.O_RDONLY)
        self._dimension = dimension

    def read(self, row: int) -> bytes:
        """One row."""
        return os.pread(self._descriptor, self.row_bytes, row * self.row_bytes)

    def mapped(self) -> np.ndarray:
        """All rows, float16, mapped as long as the result lives."""
        shape = (self.record.rows, self._dimension)
        return np.memmap(self.folder / "features.f16", dtype="<f2", mode="c", shape=shape)

    def name(self, row: int) -> str:
        """The item of a row."""
        first = max(row - 1, 0)
        path = self.folder / "names.txt"
        with decoding(path, "names of the cache", "Build the cache again."):
            with (self.folder / "names.idx").open("rb") as file:
                file.seek(first * _OFFSET_BYTES)
                ends = np.frombuffer(file.read((row - first + 1) * _OFFSET_BYTES), dtype="<i8")
            start = int(ends[0]) if row else 0
            if not 0 <= start < ends[-1] <= path.stat().st_size:
                raise ValueError(f"row {row} would end at byte {ends[-1]}")
            with path.open("rb") as file:
                file.seek(start)
                return file.read(int(ends[-1]) - start - 1).decode()

    def close(self) -> None:
        """Release the file."""
        os.close(self._descriptor)


class StoredFeatures:
    """The rows of all parts, in the order of the items."""

    def __init__(self, cache: Path, shards: int, dimension: int) -> None:
        numbers = range(1, shards + 1)
        complete = {path.parent for path in cache.glob(f"part-*-of-{shards:04d}/part.json")}
        folders = (part_folder(cache, shard, shards) for shard in numbers)
        if missing := [path.name for path in islice((p for p in folders if p not in complete), 4)]:
            raise UserError(
                f"{shards - len(complete)} of {shards} parts of {str(cache)!r} are not complete: {missing}. "
                "Run 'llama-adapter cache build' for them, or again for those that were stopped."
            )
        self.dimension = dimension
        self._parts = [_Part(part_folder(cache, shard, shards), dimension) for shard in numbers]
        self._starts = np.cumsum([0] + [part.record.rows for part in self._parts])

    def __len__(self) -> int:
        """Number of rows."""
        return int(self._starts[-1])

    def __del__(self) -> None:
        """Release the files."""
        for part in getattr(self, "_parts", []):
            part.close()

    @property
    def skipped(self) -> int:
        """Items that gave no row."""
        return sum(part.record.skipped for part in self._parts)

    @property
    def digest(self) -> str:
        """SHA-256 over the parts' digests."""
        return hashlib.sha256("".join(part.record.digest for part in self._parts).encode()).hexdigest()

    def rows(self, numbers: Int[Tensor, "..."]) -> Float[Tensor, "... E"]:
        """Rows here and there, float32; numbers below 0 give zeros."""
        flat = numbers.flatten().tolist()
        zeros = bytes(self.dimension * _ITEM_BYTES)
        joined = bytearray().join(zeros if row < 0 else self._at(row, _Part.read) for row in flat)
        values = torch.from_numpy(np.frombuffer(joined, dtype="<f2"))
        return values.float().view(*numbers.shape, self.dimension)

    def name(self, row: int) -> str:
        """The item of a row."""
        return self._at(row, _Part.name)

    def chunks(self, size: int, start: int = 0, stop: int | None = None) -> Iterator[Float[Tensor, "_ E"]]:
        """Rows from ``start`` to ``stop`` in order, float32, so many at a time."""
        stop = len(self) if stop is None else stop
        for part, first in zip(self._parts, self._starts.tolist(), strict=False):
            rows = part.mapped() if part.record.rows else np.zeros((0, self.dimension), dtype="<f2")
            here = range(max(start - first, 0), min(stop - first, part.record.rows), size)
            for begin in here:
                yield torch.from_numpy(rows[begin : min(begin + size, here.stop)]).float()

    def _at(self, row: int, read: Callable[[_Part, int], _Read]) -> _Read:
        """What ``read`` gives for a row in its part."""
        part = int(np.searchsorted(self._starts, row, side="right")) - 1
        return read(self._parts[part], row - int(self._starts[part]))
