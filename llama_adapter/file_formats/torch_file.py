"""Files of ``torch.save``, zip archives and the older format, read without believing them.

A file's pickle is gone through twice. The first time every class in it is an inert stand-in: nothing runs,
no tensor is made, and what comes out is how many bytes each storage claims. These are compared with the
entries of the archive, or with the length of the file, so that a file cannot ask for more memory than it is
long. Only then torch reads it, with ``weights_only``. Tensors of archives are mapped: pages come in as they
are used, so checksums are compared first where that is asked for, since a mapped file would not notice a
flipped bit.
"""

import argparse
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch

from llama_adapter.errors import UserError
from llama_adapter.file_formats.damage import FRESH_COPY, reading

_KIND = "torch checkpoint"
_MAGIC = 0x1950A86A20F9469CFC6C
"""First value in files of the older format."""
_LONGEST_LINE = 2**16
_GLOBAL = re.compile(r"GLOBAL (\S+)")


def read_torch_file(path: str | Path, verify: bool = True) -> Any:
    """What a file holds; ``argparse.Namespace``, in which training scripts keep options, is let through.

    Args:
        path: the file.
        verify: whether to compare the checksums of an archive, which reads all of it.

    Raises:
        UserError: the file is damaged, or holds code.
    """
    path = Path(path)
    is_archive = check_torch_file(path, verify)
    with reading(path, _KIND), torch.serialization.safe_globals([argparse.Namespace]):
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_archive)
        except pickle.UnpicklingError as error:
            raise UserError(f"{str(path)!r} cannot be read safely: {_reason(error)}") from error


def check_torch_file(path: str | Path, verify: bool = False) -> bool:
    """Compare what a file says about itself with the file; nothing of it is loaded.

    Args:
        path: the file.
        verify: as in ``read_torch_file``.

    Returns:
        Whether it is an archive.

    Raises:
        UserError: it is damaged.
    """
    path = Path(path)
    with reading(path, _KIND):
        with path.open("rb") as file:
            # zipfile.is_zipfile would also look for an archive's end anywhere in the file
            is_archive = file.read(4) == b"PK\x03\x04"
        if is_archive:
            _check_archive(path, verify)
        else:
            _check_older(path)
    return is_archive


def _check_archive(path: Path, verify: bool) -> None:
    """Compare the entries with the file, and the storages with the entries."""
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        for entry in archive.infolist():
            if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
                raise _damaged(path, f"the entry {entry.filename!r} is compressed or encrypted")
            if entry.header_offset + entry.file_size > size or entry.file_size != entry.compress_size:
                raise _damaged(path, f"the entry {entry.filename!r} says it has {entry.file_size} bytes")
            archive.open(entry).close()  # compares the entry's own header
        if len(entries) != len(archive.infolist()):
            raise _damaged(path, "an entry is there twice")
        if verify and (damaged := archive.testzip()):
            raise UserError(
                f"{str(path)!r} is corrupt: the checksum of {damaged!r} differs. {FRESH_COPY[:-1]}, or "
                "`--verify false` for a file that was written without checksums."
            )
        (pickled,) = [name for name in entries if name.endswith("data.pkl") and name.count("/") == 1]
        with archive.open(pickled) as file:
            structure = _Structure(_Bounded(file, entries[pickled].file_size))
            structure.load()
    for key, wanted in structure.storages.items():
        there = entries.get(f"{pickled.partition('/')[0]}/data/{key}")
        if there is None or there.file_size < wanted:
            state = "missing" if there is None else f"{there.file_size} bytes long"
            raise _damaged(path, f"its storage {key!r} of {wanted} bytes is {state}")


def _check_older(path: Path) -> None:
    """Compare the storages with what is left of the file behind its pickles."""
    size = path.stat().st_size
    with path.open("rb") as file:
        bounded = _Bounded(file, size)
        if size == 0 or _Structure(bounded).load() != _MAGIC:
            what = "is empty" if size == 0 else "cannot be read safely: it is damaged, or a plain pickle"
            raise UserError(f"{str(path)!r} {what}. Use a file written by torch.save or safetensors.")
        for _ in ("version", "machine"):
            _Structure(bounded).load()
        content = _Structure(bounded)
        content.load()
        keys = _Structure(bounded).load()
        left = size - file.tell()
    if not isinstance(keys, list) or {str(key) for key in keys} != content.storages.keys():
        raise _damaged(path, "its list of storages is not that of its tensors")
    if (wanted := sum(content.storages.values()) + 8 * len(keys)) > left:
        raise _damaged(path, f"truncated: {wanted} bytes of tensors are announced, {left} are there")


def _damaged(path: Path, how: str) -> UserError:
    """What to say of a file that contradicts itself."""
    return UserError(f"{str(path)!r} is damaged or no {_KIND} ({how}). {FRESH_COPY}")


class _Bounded:
    """A file for a pickle reader that never asks the system for more than is left."""

    def __init__(self, file: Any, size: int) -> None:
        self._file: BinaryIO = file
        self._size = size

    def read(self, count: int = -1) -> bytes:
        """At most so many bytes."""
        left = self._size - self._file.tell()
        return self._file.read(left if count < 0 else min(count, left))

    def readline(self) -> bytes:
        """A line; names of classes are short."""
        return self._file.readline(_LONGEST_LINE)


class _Inert:
    """Stands for any class or function in a pickle, and does nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> "_Inert":
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None: ...

    def __setitem__(self, key: Any, value: Any) -> None: ...

    def append(self, item: Any) -> None:
        """As lists do."""

    extend = append
    add = append


class _Structure(pickle._Unpickler):
    """Goes through a pickle and notes the bytes of each storage, running nothing."""

    def __init__(self, file: _Bounded) -> None:
        super().__init__(file, encoding="latin-1")
        self.storages: dict[str, int] = {}

    def find_class(self, module: str, name: str) -> Any:
        """A stand-in of that name."""
        return type(str(name), (_Inert,), {})

    def persistent_load(self, saved: Any) -> Any:
        """Note a storage, saved as kind, type, key, place and number of elements."""
        _, kind, key, _, count = saved[:5]
        if not isinstance(count, int) or count < 0:
            raise ValueError(f"a storage of {count!r} elements")
        self.storages[str(key)] = count * _width(kind.__name__.removesuffix("Storage"))
        return _Inert()


def _width(kind: str) -> int:
    """Bytes of an element in a storage of a type like ``Float``; 1 where that says nothing."""
    name = {"ComplexFloat": "cfloat", "ComplexDouble": "cdouble"}.get(kind, kind.lower())
    return getattr(getattr(torch, name, None), "itemsize", 1)


def _reason(error: pickle.UnpicklingError) -> str:
    """Why safe unpickling stopped, and what to do; not torch's own advice, to load it all the same."""
    culprit = _GLOBAL.search(str(error))
    if culprit is None:
        return "it is damaged, or a plain pickle. Use a file written by torch.save or safetensors."
    return (
        f"it wants to run code ({culprit[1]!r}) while loading. "
        "Save its tensors alone, torch.save(state_dict, ...), in a place where you trust the file."
    )
