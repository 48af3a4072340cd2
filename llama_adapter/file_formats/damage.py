"""The one place that turns what readers raise at a damaged file into a message."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from llama_adapter.errors import UserError

FRESH_COPY = "Use a fresh copy."
_LETTERS = 200
_OF_RUST = "PanicException"
"""What readers written in Rust raise where they give up; no ``Exception``, and of no importable class."""


@contextmanager
def reading(
    path: Any, kind: str, advice: str = FRESH_COPY, said: str = "is damaged or no {kind} ({error})"
) -> Iterator[None]:
    """Whatever goes wrong inside is the fault of a file.

    Only a reader's call belongs inside. That anything is caught is meant: what a library raises at bytes that
    nobody wrote on purpose is nowhere said, and no list of it stays complete.

    Args:
        path: the file, or the folder that holds it.
        kind: what it should be, such as ``safetensors file``.
        advice: what to do, a sentence.
        said: what is said of the file.

    Raises:
        UserError: names file and damage.
    """
    try:
        yield
    except UserError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != _OF_RUST:
            raise
        words = said.format(kind=kind, error=first_line(error))
        raise UserError(f"{str(path)!r} {words}. {advice}") from error


def decoding(path: Any, kind: str, advice: str = "Replace the file.") -> AbstractContextManager[None]:
    """``reading`` for media and tables, whose kind comes with its article, such as ``an image``."""
    return reading(path, kind, advice, "cannot be read as {kind}: {error}")


def first_line(error: BaseException) -> str:
    """The first line of a library's message, without full stop; the error's name where it says nothing."""
    lines = str(error).strip().splitlines()
    name = type(error).__name__
    # the text of these is a bare value, which says nothing alone
    text = f"{name}: {lines[0]}" if lines and isinstance(error, LookupError) else lines[0] if lines else name
    return text[:_LETTERS].rstrip(". ")
