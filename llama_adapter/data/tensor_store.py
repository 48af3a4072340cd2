"""A folder of tensors by key: append-only, memory-mapped, shared by processes, whole after a kill.

Two files. ``data.bin`` holds the values, ``index.bin`` one fixed-size entry per tensor with its place, its
shape and checksums of both. Values are written first and the entry after them, under a lock; so an entry that
can be read points to values that are there, and what a killed writer leaves behind its last entry is
overwritten by the next one. What is unusual: entries count only up to the first that is damaged or points
outside the values, and writers cut the index there, so readers and writers agree after any truncation. Values
that rotted are noticed when a tensor is read first. Nothing is pickled. What a key stands for is not known
here.

Dimensions: N tokens of one item, W width.
"""

import json
import mmap
import shutil
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from jaxtyping import Float
from torch import Tensor

from llama_adapter.data.identity import canonical_json
from llama_adapter.errors import UserError

FORMAT = 1
"""Raise it when the files change; a folder of another format is refused."""

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
"""The types values are kept in. Rounding from float32 costs at most 2**-11 of a value in float16 (between
6e-5 and 65504) and 2**-8 in bfloat16."""

_PLACE = struct.Struct("<32sQIII")  # key, offset, N, W, checksum of the values
_CHECK = struct.Struct("<I")  # checksum of the place
_ENTRY_SIZE = _PLACE.size + _CHECK.size
_ALIGNMENT = 64
_FREE_SHARE = 0.95


@dataclass(frozen=True)
class _Entry:
    """Where one tensor lies; N = W = 0 takes its key back."""

    key: bytes
    offset: int
    tokens: int
    width: int
    checksum: int

    def packed(self) -> bytes:
        place = _PLACE.pack(self.key, self.offset, self.tokens, self.width, self.checksum)
        return place + _CHECK.pack(zlib.crc32(place))

    def stop(self, itemsize: int) -> int:
        return self.offset + self.tokens * self.width * itemsize


class TensorStore:
    """Tensors of shape (N, W), N free, by keys of 32 bytes.

    Args:
        folder: where they lie; made if need be.
        identity: what all of them have in common, as JSON values; another one in the folder is an error.
        dtype: a name in ``DTYPES``: how values are kept.

    Raises:
        UserError: the folder holds something else, or the dtype is unknown.
    """

    def __init__(self, folder: str | Path, identity: Mapping[str, Any], dtype: str) -> None:
        if dtype not in DTYPES:
            raise UserError(f"The storage type is {dtype!r}. Use one of {sorted(DTYPES)}.")
        self.folder = Path(folder)
        self.identity, self.dtype = dict(identity), dtype
        self._torch_dtype = DTYPES[dtype]
        self.itemsize = self._torch_dtype.itemsize
        self._entries: dict[bytes, _Entry] = {}
        self._index_read = self._end = 0
        self._sound: set[bytes] = set()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self.folder / "lock")
        self._claim()
        self.refresh()

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process opens the folder itself."""
        return type(self), (self.folder, self.identity, self.dtype)

    def __len__(self) -> int:
        """Tensors that are known; ``refresh`` finds those of other processes."""
        return len(self._entries)

    def __contains__(self, key: object) -> bool:
        """Whether a tensor is there."""
        return key in self._entries

    @property
    def num_bytes(self) -> int:
        """Size of both files."""
        return self._end + self._index_read

    def item_bytes(self, key: bytes) -> int:
        """Size of one tensor's values."""
        entry = self._entries[key]
        return entry.tokens * entry.width * self.itemsize

    def get(self, key: bytes) -> Float[Tensor, "N W"] | None:
        """One tensor, mapped from the file; None when it is not there or its values are damaged.

        Writing to it changes the copy in memory only. A damaged one is forgotten: it can be appended anew.
        """
        entry = self._entries.get(key)
        if entry is None:
            return None
        values = self._mapped(entry)
        if values is not None and key not in self._sound:
            values = values if _checksum(values) == entry.checksum else None
        if values is None:
            del self._entries[key]
            return None
        self._sound.add(key)
        return values

    def append(self, tensors: Mapping[bytes, Float[Tensor, "_ _"]]) -> int:
        """Add tensors whose keys are not there yet, all of them or, if this is killed, a part.

        Args:
            tensors: key -> values (N, W), on any device; they are rounded to the storage type.

        Returns:
            How many were added; another process may have been faster.

        Raises:
            UserError: a value is not finite in the storage type, or the disk is full.
        """
        rounded = {key: self._rounded(key, values) for key, values in tensors.items()}
        with self._lock:
            self.refresh()
            new = {key: values for key, values in rounded.items() if key not in self._entries}
            if new:
                try:
                    self._write(new)
                except OSError as error:
                    raise UserError(
                        f"Writing to {str(self.folder)!r} failed: {error}. Free some space, or choose "
                        "another folder; what was written before stays valid."
                    ) from error
        self.refresh()
        return len(new)

    def refresh(self) -> None:
        """Find what other processes have added."""
        size = (self.folder / "data.bin").stat().st_size
        with (self.folder / "index.bin").open("rb") as file:
            file.seek(self._index_read)
            raw = file.read()
        for start in range(0, len(raw) - _ENTRY_SIZE + 1, _ENTRY_SIZE):
            entry = _parsed(raw[start : start + _ENTRY_SIZE])
            if entry is None or entry.offset < self._end or entry.stop(self.itemsize) > size:
                break
            self._index_read += _ENTRY_SIZE
            self._end = entry.stop(self.itemsize)
            self._sound.discard(entry.key)
            if entry.width:
                self._entries[entry.key] = entry
            else:
                self._entries.pop(entry.key, None)

    def verify(self, repair: bool = False) -> list[bytes]:
        """Read everything and compare checksums.

        Args:
            repair: take damaged tensors out of the index, so that they are computed again.

        Returns:
            Keys of damaged tensors.
        """
        with self._lock:
            self._index_read = self._end = 0  # tensors that were forgotten are judged again
            self._entries.clear()
            self.refresh()
            self._sound.clear()
            damaged = [key for key in list(self._entries) if self.get(key) is None]
            if repair and damaged:
                self._write_index([_Entry(key, self._end, 0, 0, 0) for key in damaged])
        self.refresh()
        return damaged

    def check_space(self, needed: int, what: str) -> None:
        """Refuse to start what the disk cannot hold.

        Args:
            needed: bytes that are going to be added.
            what: what they are, for the message.

        Raises:
            UserError: there is less room than that.
        """
        free = shutil.disk_usage(self.folder).free
        if needed > _FREE_SHARE * free:
            raise UserError(
                f"{what} need about {readable_bytes(needed)}, and the disk of {str(self.folder)!r} has "
                f"{readable_bytes(free)} free. Choose a folder on another disk, or free some space."
            )

    def _claim(self) -> None:
        """Write what the folder is for, or compare it."""
        path = self.folder / "identity.json"
        wanted = canonical_json({"format": FORMAT, "dtype": self.dtype, "identity": self.identity})
        with self._lock:
            if not path.exists():
                for name in ("data.bin", "index.bin"):
                    (self.folder / name).touch()
                draft = path.with_suffix(".draft")
                draft.write_text(wanted, encoding="utf-8")
                draft.replace(path)
            found = path.read_text(encoding="utf-8")
        if found != wanted:
            raise UserError(
                f"{str(self.folder)!r} holds other tensors ({_first_difference(found, wanted)}). "
                "Choose another folder, or delete it."
            )

    def _rounded(self, key: bytes, values: Tensor) -> Tensor:
        """Values as they are kept, on the CPU."""
        if values.dim() != 2 or not values.numel():
            raise UserError(
                f"A tensor of shape {tuple(values.shape)} cannot be stored. Use the shape (tokens, width)."
            )
        kept = values.detach().to("cpu", self._torch_dtype).contiguous()
        if not bool(torch.isfinite(kept).all()):
            largest = float(values.detach().abs().max())
            raise UserError(
                f"Item {key.hex()[:12]} has values that are not finite as {self.dtype} (largest: "
                f"{largest:.4g}). Choose bfloat16 or float32, or repair what computed them."
            )
        return kept

    def _write(self, new: dict[bytes, Tensor]) -> None:
        """Values, then entries; the lock is held and the index is read to its end."""
        entries = list[_Entry]()
        with (self.folder / "data.bin").open("r+b") as file:
            for key, values in new.items():
                offset = -(-max(self._end, file.tell()) // _ALIGNMENT) * _ALIGNMENT
                file.seek(offset)
                file.write(_raw(values))
                tokens, width = values.shape
                entries.append(_Entry(key, offset, tokens, width, _checksum(values)))
        self._write_index(entries)

    def _write_index(self, entries: list[_Entry]) -> None:
        """Add entries behind the last valid one."""
        with (self.folder / "index.bin").open("r+b") as file:
            file.truncate(self._index_read)
            file.seek(self._index_read)
            file.write(b"".join(entry.packed() for entry in entries))

    def _mapped(self, entry: _Entry) -> Tensor | None:
        """The values of an entry; None when the file has become too short."""
        start = entry.offset // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
        length = entry.stop(self.itemsize) - start
        try:
            with (self.folder / "data.bin").open("rb") as file:
                # Private and per tensor: it may be written to, and the file may be larger than the memory.
                buffer = mmap.mmap(file.fileno(), length, access=mmap.ACCESS_COPY, offset=start)
        except ValueError:
            return None
        flat = torch.frombuffer(
            buffer,
            dtype=self._torch_dtype,
            count=entry.tokens * entry.width,
            offset=entry.offset - start,
        )
        return flat.view(entry.tokens, entry.width)


def readable_bytes(count: float) -> str:
    """A size for people: ``1.5 GiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def _parsed(raw: bytes) -> _Entry | None:
    """One entry; None when it is damaged."""
    place, check = raw[: _PLACE.size], _CHECK.unpack(raw[_PLACE.size :])[0]
    return _Entry(*_PLACE.unpack(place)) if zlib.crc32(place) == check else None


def _raw(values: Tensor) -> memoryview:
    """The bytes of a contiguous CPU tensor."""
    return values.view(torch.uint8).numpy().data


def _checksum(values: Tensor) -> int:
    return zlib.crc32(_raw(values))


def _first_difference(found: str, wanted: str) -> str:
    """The part of two identities in which they differ, quoted."""
    try:
        there: Any = json.loads(found)
        here: Any = json.loads(wanted)
    except json.JSONDecodeError:
        return f"its identity.json is not valid: {found[:80]!r}"
    path = ""
    while isinstance(there, dict) and isinstance(here, dict):
        name = next(key for key in sorted(there.keys() | here.keys()) if there.get(key) != here.get(key))
        path, there, here = f"{path}.{name}".lstrip("."), there.get(name), here.get(name)
    return f"{path}: {there!r} there, {here!r} here"
