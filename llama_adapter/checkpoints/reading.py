"""Reads tensors from files that others wrote, and finds them in what training scripts keep beside them.

Tensors are mapped from the file, not read, where its format allows: a 13 GB file opens at once and its pages
come in as they are used.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from llama_adapter.checkpoints.names import NamedTensors
from llama_adapter.errors import UserError
from llama_adapter.file_formats.safetensors_file import read_tensors
from llama_adapter.file_formats.torch_file import read_torch_file

CONTAINERS = ("model", "state_dict", "module")
"""Keys under which training scripts keep the weights, beside optimiser and options."""


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
        return CheckpointFile(path=path, tensors=read_tensors(path))
    return _unwrap(path, read_torch_file(path, verify))


def _check_file(path: Path) -> None:
    """Refuse what is no file, naming files nearby."""
    if path.is_file():
        return
    folder = path if path.is_dir() else path.parent
    nearby = sorted(found.name for found in folder.glob("*.pth")) if folder.is_dir() else []
    hint = f"Use one of its files: {nearby}." if nearby else "Use the path of a .pth or .safetensors file."
    raise UserError(f"{str(path)!r} is {'a folder' if path.is_dir() else 'no file'}. {hint}")


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
