"""Damaged files: whatever a decoder raises about one becomes a message that names file and damage.

Decoders written by others stumble over bad bytes in any way their code allows; which of these ways a file
takes says nothing to a user. Keep the blocks small: a fault of our own inside one would look like a bad file.
"""

import pickle
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llama_adapter.errors import UserError

DECODER_ERRORS: tuple[type[Exception], ...] = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BufferError,
    EOFError,
    LookupError,
    MemoryError,  # a damaged header may ask for any size
    OSError,
    RuntimeError,
    StopIteration,
    SyntaxError,
    TypeError,
    ValueError,
    pickle.PickleError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What decoders raise for damaged files, unless they have errors of their own."""

_LETTERS = 200


@contextmanager
def decoding(
    path: Any, kind: str, remedy: str = "Replace the file.", errors: tuple[type[Exception], ...] = ()
) -> Iterator[None]:
    """Turn what is raised inside the block into a ``UserError`` about a file.

    Args:
        path: the file, as messages call it.
        kind: what it is read as, with its article.
        remedy: what to do.
        errors: the decoder's own exceptions, beside ``DECODER_ERRORS``.

    Raises:
        UserError: anything of these was raised; one that was raised inside goes on as it is.
    """
    try:
        yield
    except UserError:
        raise
    except (*DECODER_ERRORS, *errors) as error:
        said = damage(error)
        raise UserError(f"{str(path)!r} cannot be read as {kind}: {said}. {remedy}") from error


def damage(error: BaseException) -> str:
    """The first line of what a decoder says, without its end."""
    said = (str(error).strip().splitlines() or [""])[0][:_LETTERS].rstrip(". ")
    return said or type(error).__name__
