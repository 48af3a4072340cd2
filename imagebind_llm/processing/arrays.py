"""Array files: .npy, .npz, .safetensors, and .pt that holds nothing but tensors; for all that reads arrays.

Unusual: what a header declares is compared with the size of the file before memory is taken, and nothing is
unpickled but tensors. Arrays are mapped from their files where the format allows it.
"""

import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped

from llama_adapter.errors import UserError
from llama_adapter.file_formats.damage import decoding

ARRAYS = (".npy", ".npz", ".pt", ".safetensors")
"""How the names of array files end."""
_NUMBERS = "biuf"
_LARGEST = 4 << 30
"""Bytes of an array that cannot be mapped, because it is compressed."""


def read_array(path: str | Path) -> Shaped[np.ndarray, "..."]:
    """The array of a file that holds one, in numbers of this machine's byte order.

    Raises:
        UserError: the file is missing, damaged, of another type, would run code, or holds anything but one
            array of real numbers.
    """
    path = Path(path)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise UserError(f"{str(path)!r} is no file of an array. Use {', '.join(_READERS)}.")
    found = reader(path)
    if found.dtype.kind not in _NUMBERS:
        raise UserError(f"{str(path)!r} holds values of the type {found.dtype}. Use real numbers.")
    wide = found.dtype.itemsize > 8 and found.dtype.kind == "f"
    return found.astype(np.float64 if wide else found.dtype.newbyteorder("="), copy=False)


def _npy(path: Path) -> np.ndarray:
    """NumPy's file of one array."""
    with decoding(path, "an array"):
        with path.open("rb") as file:
            dtype, shape, fortran = _header(file, path, path.stat().st_size)
            start = file.tell()
        if not all(shape):
            return np.empty(shape, dtype)  # nothing can be mapped
        order: Any = "F" if fortran else "C"
        return np.memmap(path, dtype, mode="c", offset=start, shape=shape, order=order)


def _npz(path: Path) -> np.ndarray:
    """NumPy's archive, of one array."""
    with decoding(path, "an array"), zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if len(members) != 1:
            names = [member.filename.removesuffix(".npy") for member in members]
            raise UserError(f"{str(path)!r} holds the arrays {names[:8]}. Use a file with one array.")
        size = members[0].file_size
        if size > _LARGEST:
            raise UserError(
                f"{str(path)!r} would take {size:,} bytes unpacked; at most {_LARGEST:,} are. "
                "Save it as .npy."
            )
        with archive.open(members[0]) as file:
            dtype, shape, fortran = _header(file, path, size)
            found = np.frombuffer(bytearray(file.read()), dtype)  # its end is where checksums are compared
        return found[: int(np.prod(shape))].reshape(shape, order="F" if fortran else "C")


def _header(file: Any, path: Path, size: int) -> tuple[np.dtype, tuple[int, ...], bool]:
    """Type, shape and order of NumPy's array; the file then stands at its values.

    Raises:
        UserError: the values are pickled, or more than there are bytes for.
    """
    version = np.lib.format.read_magic(file)
    read: Any = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it was written by Python 2
        shape, fortran, dtype = read.get(version, read[2, 0])(file)
    if dtype.hasobject:
        raise UserError(f"{str(path)!r} holds pickled objects, which may run code. Save numbers alone.")
    if min(shape, default=0) < 0 or dtype.itemsize * _count(shape) > size - file.tell():
        raise UserError(
            f"{str(path)!r} declares {shape} values of the type {dtype}, more than its {size:,} bytes hold. "
            "Replace the file."
        )
    return dtype, shape, fortran


def _count(shape: tuple[int, ...]) -> int:
    """Values of a shape, however many."""
    count = 1
    for side in shape:
        count *= int(side)
    return count


def _pt(path: Path) -> np.ndarray:
    """torch's, without running anything that the file may contain."""
    try:
        with decoding(path, "a tensor"):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except UserError as error:
        if not isinstance(error.__cause__, pickle.UnpicklingError):
            raise
        raise UserError(  # torch's own advice is to run it
            f"{str(path)!r} is damaged, or wants to run code while loading. "
            "Save the tensor alone, with torch.save."
        ) from error
    return _one_tensor(content, path)


def _safetensors(path: Path) -> np.ndarray:
    """Hugging Face's."""
    from safetensors.torch import load_file

    with decoding(path, "tensors"):
        content = load_file(path)
    return _one_tensor(content, path)


def _one_tensor(content: Any, path: Path) -> np.ndarray:
    """The tensor that a file held.

    Raises:
        UserError: it held something else.
    """
    found = list(content.values()) if isinstance(content, dict) else [content]
    if len(found) != 1 or not isinstance(found[0], torch.Tensor):
        kinds = [tuple(x.shape) if isinstance(x, torch.Tensor) else type(x).__name__ for x in found[:8]]
        raise UserError(f"{str(path)!r} holds {kinds}. Use a file with one tensor.")
    with decoding(path, "a tensor"):
        tensor = found[0].detach()
        if tensor.numel() * tensor.element_size() > path.stat().st_size:  # one value may stand for many
            raise UserError(
                f"{str(path)!r} declares {tuple(tensor.shape)} values, more than its bytes hold. Save the "
                "tensor's clone."
            )
        if tensor.is_floating_point() and tensor.dtype not in (torch.float16, torch.float32, torch.float64):
            tensor = tensor.float()  # NumPy has no such type
        array: np.ndarray = tensor.numpy()
        return array


_READERS: dict[str, Callable[[Path], np.ndarray]] = dict(
    zip(ARRAYS, (_npy, _npz, _pt, _safetensors), strict=True)
)
