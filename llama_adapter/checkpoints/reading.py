"""Reads tensors from files that others wrote, without running anything those files may contain.

Unusual: ``weights_only`` always, ``argparse.Namespace`` being the one class that is let through (training
scripts store their options in it). Tensors are mapped from the file, not read, where its format allows: a
13 GB file opens at once and its pages come in as they are used. Checksums are compared first, since a mapped
file would not notice a flipped bit.
"""

import argparse
import pickle
import re
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from llama_adapter.checkpoints.names import NamedTensors
from llama_adapter.errors import UserError

CONTAINERS = ("model", "state_dict", "module")
"""Keys under which training scripts keep the weights, beside optimiser and options."""

_GLOBAL = re.compile(r"GLOBAL (\S+)")


@dataclass(frozen=True, kw_only=True)
class CheckpointFile:
    """What one file holds."""

    path: Path
    """The file."""
    tensors: NamedTensors
    """Tensors by the name they have in the file."""
    container: str = ""
    """Key of the mapping that held them; empty when the file is that mapping."""
    beside: dict[str, Any] = field(default_factory=dict)
    """What lay beside the tensors: options, optimiser, epoch ..."""


def read_checkpoint(path: str | Path, verify: bool = True) -> CheckpointFile:
    """Open a ``.pth`` or ``.safetensors`` file.

    Args:
        path: The file.
        verify: Whether to compare the checksums of a zip-format ``.pth`` first; reads all of it.

    Raises:
        UserError: The file is missing, truncated, corrupt, holds code, or holds no tensors.
    """
    path = Path(path)
    _check_file(path)
    if path.suffix == ".safetensors":
        return CheckpointFile(path=path, tensors=_read_safetensors(path))
    if verify:
        _check_sums(path)
    return _unwrap(path, _read_pickled(path))


def _check_file(path: Path) -> None:
    """Refuse what is no file, naming files nearby."""
    if path.is_file():
        return
    folder = path if path.is_dir() else path.parent
    nearby = sorted(found.name for found in folder.glob("*.pth")) if folder.is_dir() else []
    hint = f"Use one of its files: {nearby}." if nearby else "Use the path of a .pth or .safetensors file."
    raise UserError(f"{str(path)!r} is {'a folder' if path.is_dir() else 'no file'}. {hint}")


def _read_safetensors(path: Path) -> NamedTensors:
    """All tensors of a safetensors file."""
    try:
        return load_file(path)
    except SafetensorError as error:
        raise UserError(
            f"{str(path)!r} is truncated or no safetensors file ({error}). Use a fresh copy."
        ) from error


def _check_sums(path: Path) -> None:
    """Compare the checksums of a zip archive; files in torch's older format have none."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        try:
            damaged = archive.testzip()
        except zipfile.BadZipFile as error:
            damaged = str(error)
    if damaged:
        raise UserError(
            f"{str(path)!r} is corrupt: the checksum of {damaged!r} differs. "
            "Use a fresh copy, or `--verify false` for a file that was written without checksums."
        )


def _read_pickled(path: Path) -> Any:
    """What ``torch.save`` wrote, with tensors mapped from the file if its format allows."""
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            is_zip = zipfile.is_zipfile(path)
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        raise UserError(f"{str(path)!r} cannot be read safely: {_reason(error)}") from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise UserError(
            f"{str(path)!r} is truncated, corrupt or no torch checkpoint ({_first_line(error)}). "
            "Use a fresh copy."
        ) from error


def _reason(error: pickle.UnpicklingError) -> str:
    """Why safe unpickling stopped, and what to do; not torch's own advice, to load it all the same."""
    culprit = _GLOBAL.search(str(error))
    if culprit is None:
        return "it is damaged, or a plain pickle. Use a file written by torch.save or safetensors."
    return (
        f"it wants to run code ({culprit[1]!r}) while loading. "
        "Save its tensors alone, torch.save(state_dict, ...), in a place where you trust the file."
    )


def _unwrap(path: Path, content: Any) -> CheckpointFile:
    """Find the mapping of tensors in what a file held."""
    if not isinstance(content, dict):
        raise UserError(
            f"{str(path)!r} holds a {type(content).__name__}. Use a file that holds named tensors."
        )
    for container in CONTAINERS:
        inner = content.get(container)
        if isinstance(inner, dict) and _tensors_of(inner):
            beside = {name: value for name, value in content.items() if name != container}
            return CheckpointFile(path=path, tensors=_tensors_of(inner), container=container, beside=beside)
    tensors = _tensors_of(content)
    if not tensors:
        raise UserError(
            f"{str(path)!r} holds no tensors, only {sorted(map(str, content))[:8]}. "
            "Use a file that holds named tensors, flat or under 'model'."
        )
    beside = {name: value for name, value in content.items() if name not in tensors}
    return CheckpointFile(path=path, tensors=tensors, beside=beside)


def _tensors_of(mapping: dict[Any, Any]) -> NamedTensors:
    """The entries that are tensors."""
    return {name: value for name, value in mapping.items() if isinstance(value, Tensor)}


def _first_line(error: BaseException) -> str:
    """The first line of a library's message, without its end."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
