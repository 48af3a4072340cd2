"""The one place that turns what readers raise at a damaged file into a message."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llama_adapter.errors import UserError

FRESH_COPY = "Use a fresh copy."
_OF_RUST = "PanicException"
"""What readers written in Rust raise where they give up; no ``Exception``, and of no importable class."""


@contextmanager
def reading(path: str | Path, kind: str, advice: str = FRESH_COPY) -> Iterator[None]:
    """Whatever goes wrong inside is the fault of a file.

    Only a reader's call belongs inside. That anything is caught is meant: what a library raises at bytes that
    nobody wrote on purpose is nowhere said, and no list of it stays complete.

    Args:
        path: the file, or the folder that holds it.
        kind: what it should be, such as ``safetensors file``.
        advice: what to do, a sentence.

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
        raise UserError(f"{str(path)!r} is damaged or no {kind} ({first_line(error)}). {advice}") from error


def first_line(error: BaseException) -> str:
    """The first line of a library's message, without full stop; the error's name where it says nothing."""
    lines = str(error).strip().splitlines()
    name = type(error).__name__
    # the text of these is a bare value, which says nothing alone
    text = f"{name}: {lines[0]}" if lines and isinstance(error, LookupError) else lines[0] if lines else name
    return text.rstrip(".")
