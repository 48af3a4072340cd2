"""Tensors in a folder's safetensors files, one at a time: read from anywhere, written over in place.

Unusual: nothing is mapped and no file is read as a whole. A tensor's place follows from its file's header (a
length as 8 bytes, then JSON), so that a tensor can be read or replaced by itself.

Dimensions: ``...`` any shape.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor

from llama_adapter.errors import UserError

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_LENGTH = 8
"""Bytes of the header's length."""


@dataclass(frozen=True)
class StoredTensor:
    """Where one tensor stands."""

    path: Path
    """Its file."""
    offset: int
    """First byte in the file."""
    size: int
    """Bytes."""
    dtype: torch.dtype
    """Its type."""
    shape: tuple[int, ...]
    """Its shape."""

    def read(self) -> Shaped[Tensor, "..."]:
        """The tensor."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            content = bytearray(file.read(self.size))
        if len(content) != self.size:
            raise UserError(f"{str(self.path)!r} is cut off. Use a fresh copy.")
        values = (
            torch.frombuffer(content, dtype=self.dtype) if self.size else torch.empty(0, dtype=self.dtype)
        )
        return values.view(self.shape)

    def write(self, values: Shaped[Tensor, "..."]) -> None:
        """Put other values of the same shape and type in its place."""
        with self.path.open("r+b") as file:
            file.seek(self.offset)
            file.write(values.contiguous().view(-1).view(torch.uint8).numpy().data)


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Name -> place, of all weights in a folder.

    Raises:
        UserError: there are none, a file is missing or damaged, or its types are unknown here.
    """
    found: dict[str, StoredTensor] = {}
    for path in _files(folder):
        for name, place in _in_file(path).items():
            if name in found:
                raise UserError(
                    f"{name!r} is in {found[name].path.name!r} and in {path.name!r} of {str(folder)!r}. "
                    "Remove the file that does not belong there."
                )
            found[name] = place
    return found


def _files(folder: Path) -> list[Path]:
    """The weight files of a folder: those its index names, else all."""
    if not folder.is_dir():
        raise UserError(f"{str(folder)!r} is no folder. Use the folder of a saved model.")
    indexes = sorted(folder.glob("*.safetensors.index.json"))
    if not indexes:
        files = sorted(folder.glob("*.safetensors"))
    else:
        names = {name for path in indexes for name in json.loads(path.read_text())["weight_map"].values()}
        files = [folder / name for name in sorted(names)]
    if missing := next((path for path in files if not path.is_file()), None):
        raise UserError(f"{str(missing)!r} is missing, the index names it. Use a complete copy.")
    if not files:
        raise UserError(
            f"{str(folder)!r} has no .safetensors files. Load the model with transformers and save it anew, "
            "or use `llama-adapter convert` for official files."
        )
    return files


def _in_file(path: Path) -> dict[str, StoredTensor]:
    """Name -> place, of one file."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH), "little")
        text = file.read(length) if length < path.stat().st_size else b""
    try:
        header: dict[str, Any] = json.loads(text)
        header.pop("__metadata__", None)
        return {name: _place(path, _LENGTH + length, entry) for name, entry in header.items()}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{str(path)!r} is damaged or no safetensors file. Use a fresh copy.") from error


def _place(path: Path, start: int, entry: dict[str, Any]) -> StoredTensor:
    """The place that an entry of the header states."""
    if entry["dtype"] not in _DTYPES:
        raise UserError(
            f"{str(path)!r} holds weights of type {entry['dtype']}. Mix models that are not quantised, in "
            "float32, bfloat16 or float16."
        )
    first, last = entry["data_offsets"]
    return StoredTensor(path, start + first, last - first, _DTYPES[entry["dtype"]], tuple(entry["shape"]))
