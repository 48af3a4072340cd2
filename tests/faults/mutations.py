"""Damaged files, made from valid ones: what any reader must either use or name in a ``UserError``.

``mutants`` gives the same bytes for the same seed, so a case that failed can be made again by its number.
``check`` runs a reader on many of them and returns what became of them.
"""

import contextlib
import io
import random
import resource
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from llama_adapter.errors import UserError

_NUMBERS = (
    b"0",
    b"-1",
    b"1",
    b"3",
    b"255",
    b"65536",
    b"4294967296",
    b"99999999999999999999",
    b"nan",
    b"1e999",
    b"x",
)
_PATTERNS = (
    b"\x00",
    b"\xff",
    b"\x7f\xff\xff\xff",
    b"\x80\x00\x00\x00",
    b"\xef\xbb\xbf",
    b"\r\n",
    b"PK\x03\x04",
)


def mutants(content: bytes, count: int, seed: int = 0) -> Iterator[bytes]:
    """Damaged forms of a file.

    Args:
        content: of the valid file.
        count: how many.
        seed: of the choices.
    """
    for number in range(count):
        chance = random.Random(f"{seed} {number}")
        damaged = bytearray(content)
        for _ in range(chance.choice((1, 1, 1, 2, 5))):
            chance.choice(_WAYS)(damaged, chance)
        yield bytes(damaged)


def _flip(content: bytearray, chance: random.Random) -> None:
    """A bit, half of the time near the beginning, where headers are."""
    if content:
        content[_place(content, chance)] ^= 1 << chance.randrange(8)


def _byte(content: bytearray, chance: random.Random) -> None:
    """A byte."""
    if content:
        content[_place(content, chance)] = chance.randrange(256)


def _cut(content: bytearray, chance: random.Random) -> None:
    """The end is missing."""
    del content[chance.randrange(len(content) + 1) :]


def _hole(content: bytearray, chance: random.Random) -> None:
    """A piece in the middle is missing."""
    start = _place(content, chance) if content else 0
    del content[start : start + chance.choice((1, 2, 4, 16, 512))]


def _twice(content: bytearray, chance: random.Random) -> None:
    """A piece stands there twice."""
    start = _place(content, chance) if content else 0
    content[start:start] = content[start : start + chance.choice((1, 4, 64, 1024))]


def _pattern(content: bytearray, chance: random.Random) -> None:
    """Bytes that mean much to a reader, over others or between them."""
    piece = chance.choice(_PATTERNS)
    start = _place(content, chance) if content else 0
    content[start : start + len(piece) * chance.randrange(2)] = piece


def _number(content: bytearray, chance: random.Random) -> None:
    """Another number in text, as headers of counts have them."""
    places = [place for place, value in enumerate(content[:2000]) if 48 <= value <= 57]
    if places:
        start = chance.choice(places)
        stop = start
        while stop < len(content) and 48 <= content[stop] <= 57:
            stop += 1
        content[start:stop] = chance.choice(_NUMBERS)


def _tail(content: bytearray, chance: random.Random) -> None:
    """Something stands behind the end."""
    content += bytes(chance.randrange(256) for _ in range(chance.choice((1, 7, 600))))


def _place(content: bytearray, chance: random.Random) -> int:
    """Where to damage."""
    return chance.randrange(min(len(content), 200) if chance.random() < 0.5 else len(content))


_WAYS = (_flip, _byte, _cut, _hole, _twice, _pattern, _number, _tail)


def wrong_kinds() -> dict[str, bytes]:
    """Files that are nothing of what a reader expects."""
    return {
        "empty": b"",
        "text": b"no such file\n",
        "html": b"<!DOCTYPE html><html><title>404 Not Found</title></html>",
        "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n",
        "zeros": bytes(4096),
        "json": b'{"a": [1, 2, 3]}',
        "pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x05print\x94\x8c\x00\x93.",
        "zip": b"PK\x05\x06" + bytes(18),
    }


def check(
    reader: Callable[[Path], object],
    path: Path,
    contents: Sequence[bytes] | Iterator[bytes],
    seconds: float = 20,
) -> Counter[str]:
    """What becomes of files: how many are ``used`` and how many ``named``.

    Args:
        reader: takes a path.
        path: where each content is written; readers may go by its name.
        contents: of the files.
        seconds: that one file may take.

    Raises:
        AssertionError: a reader raised anything but ``UserError``, did not name the file, or took too long.
            The file that did it is left at ``path``.
    """
    found: Counter[str] = Counter()
    for number, content in enumerate(contents):
        path.write_bytes(content)
        start = time.monotonic()
        said = None
        try:
            with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                reader(path)
        except UserError as error:
            said = str(error)
        except Exception as error:
            raise AssertionError(f"case {number}, left at {path}: {type(error).__name__}: {error}") from error
        taken = time.monotonic() - start
        assert taken < seconds, f"case {number}, left at {path}, took {taken:.0f} s"
        assert said is None or path.name in said, f"case {number}, left at {path}, is not named: {said}"
        found["used" if said is None else "named"] += 1
    return found


@contextlib.contextmanager
def little_memory(more: int = 4 << 30) -> Iterator[None]:
    """In the block the process may take only so many more bytes of address space."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
