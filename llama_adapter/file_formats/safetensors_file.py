"""Files of safetensors. The library compares its header with the file's length before any tensor is made.

Dimensions: ``...`` any shape.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxtyping import Shaped
from safetensors import safe_open
from torch import Tensor

from llama_adapter.file_formats.damage import FRESH_COPY, reading

_KIND = "safetensors file"


@contextmanager
def opened(path: str | Path, advice: str = FRESH_COPY) -> Iterator[Any]:
    """A file of safetensors, open; tensors are read when they are asked for.

    Raises:
        UserError: it is damaged; also when a tensor inside the block turns out to be.
    """
    with reading(path, _KIND, advice), safe_open(path, framework="pt") as file:
        yield file


def read_tensors(path: str | Path, advice: str = FRESH_COPY) -> dict[str, Shaped[Tensor, "..."]]:
    """All tensors of a file, mapped.

    Raises:
        UserError: it is damaged, or has a type of numbers that torch does not know.
    """
    with opened(path, advice) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping


def read_shapes(path: str | Path) -> dict[str, tuple[int, ...]]:
    """The shapes of all tensors of a file, by name; only its header is read.

    Raises:
        UserError: it is damaged.
    """
    with opened(path) as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
