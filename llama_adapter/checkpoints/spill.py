"""Tensors put into mapped files, so that collecting a large file's content holds no memory.

``torch.save`` wants all tensors of a file at once. Those that lie in a mapped file are written back to the
disk by the system when memory is short; tensors of their own would have to stay.

Dimensions: ``...`` any shape.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from jaxtyping import Shaped
from torch import Tensor

_SMALL = 2**20
"""Bytes from which on a tensor gets a file."""


@contextmanager
def spilling(folder: Path) -> Iterator[Callable[[Tensor], Tensor]]:
    """A function that moves a tensor to a file, for as long as the block runs.

    Args:
        folder: Where the files lie; needs room for all that is moved.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix=".spilled", ignore_cleanup_errors=True) as place:
        count = 0

        def spill(tensor: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
            """The same values, mapped; small tensors stay as they are."""
            nonlocal count
            if tensor.nbytes < _SMALL:
                return tensor
            path = Path(place) / str(count)
            count += 1
            mapped = torch.from_file(str(path), shared=True, size=tensor.numel(), dtype=tensor.dtype)
            return mapped.view(tensor.shape).copy_(tensor)

        yield spill
