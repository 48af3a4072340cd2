"""Reads JSON records one at a time with the line each of them starts on.

Unusual: an array is parsed through a sliding window, so neither its size nor a single broken record decides
how much memory is used, and bytes that are not UTF-8 pass as surrogates (``surrogateescape``) to be reported
for the record that holds them instead of ending the file. It does not know what a record should contain.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from llama_adapter.data.records import RawRow, RecordProblem, brief

CHUNK = 1 << 20
"""Characters read at a time."""
WHITE = " \t\r\n"
BLANK = re.compile(r"[ \t\r\n]*")
"""What JSON allows between its tokens."""


class Parser:
    """A JSON parser that tells what ``json`` lets pass: one key given twice, at any depth."""

    def __init__(self) -> None:
        self._decoder = json.JSONDecoder(object_pairs_hook=self._object)
        self._repeated: str | None = None

    def parse(self, text: str, start: int = 0) -> tuple[Any, int]:
        """One value and where it ends; a ``Repeated`` in its place where an object has a key twice.

        Raises:
            json.JSONDecodeError: the text is no JSON value there.
            RecordProblem: it is one that cannot be held here.
        """
        self._repeated = None
        try:
            value, end = self._decoder.raw_decode(text, start)
        except json.JSONDecodeError:
            raise
        except RecursionError as error:
            raise RecordProblem("invalid JSON: nested too deeply; use a flat record") from error
        except ValueError as error:  # a number of more digits than Python converts
            raise RecordProblem(
                "invalid JSON: a number has thousands of digits; it must be a text"
            ) from error
        return (value if self._repeated is None else Repeated(self._repeated)), end

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """Build one JSON object; notes a key that occurs twice."""
        row = dict(pairs)
        if len(row) != len(pairs) and self._repeated is None:
            self._repeated = next(key for key in row if sum(key == other for other, _ in pairs) > 1)
        return row


@dataclass(frozen=True)
class Repeated:
    """Stands for a value of which ``json`` would silently keep a part."""

    key: str
    """What occurs twice in one object."""


def as_row(record_id: str, value: Any) -> RawRow:
    """Wrap one parsed value; anything but an object with distinct keys throughout is a problem.

    Args:
        record_id: ``file:line`` of the value.
        value: what the decoder returned.

    Returns:
        The row, or its problem.
    """
    if isinstance(value, Repeated):
        return RawRow(record_id, problem=f"the key {value.key!r} occurs twice")
    if not isinstance(value, dict):
        problem = f"the record is {type(value).__name__} ({brief(value)!r}), not an object"
        return RawRow(record_id, row=value if isinstance(value, str) else None, problem=problem)
    return RawRow(record_id, row=value)


def read_json_lines(path: Path, name: str) -> Iterator[RawRow]:
    """Read one record per line; blank lines are skipped.

    Args:
        path: the file.
        name: how the file is called in ``record_id``.

    Yields:
        One row or problem per line.
    """
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="\n") as handle:
        parser = Parser()
        for number, line in enumerate(handle, start=1):
            if line.strip(WHITE):
                yield _line(parser, f"{name}:{number}", line.rstrip("\r\n"))


def _line(parser: Parser, record_id: str, line: str) -> RawRow:
    """The record of one line."""
    try:
        value, end = parser.parse(line, len(line) - len(line.lstrip(WHITE)))
        if line[end:].strip(WHITE):
            raise json.JSONDecodeError("Extra data", line, end)
    except json.JSONDecodeError as error:
        return RawRow(record_id, problem=f"invalid JSON: {error.msg} at column {error.colno}")
    except RecordProblem as problem:
        return RawRow(record_id, problem=str(problem))
    return as_row(record_id, value)


class _Window:
    """The part of a JSON text that is in memory, and the line its next character stands on."""

    def __init__(self, handle: TextIO) -> None:
        self.parser = Parser()
        self.handle, self.text, self.position, self.line, self.ended = handle, "", 0, 1, False

    def fill(self) -> None:
        """Forget what was consumed and read on; the amount doubles while one value does not fit."""
        rest = self.text[self.position :]
        chunk = self.handle.read(max(CHUNK, len(rest)))
        self.ended = not chunk
        self.text, self.position = rest + chunk, 0

    def advance(self, position: int) -> None:
        """Consume up to a position, counting lines."""
        self.line += self.text.count("\n", self.position, position)
        self.position = position

    def peek(self) -> str:
        """The next character that is not white space, or an empty text at the end."""
        while True:
            match = BLANK.match(self.text, self.position)
            self.advance(match.end() if match else self.position)
            if self.position < len(self.text) or self.ended:
                return self.text[self.position : self.position + 1]
            self.fill()

    def value(self) -> Any:
        """Parse the next value.

        Raises:
            RecordProblem: the text is no JSON value.
        """
        self.peek()
        while True:
            try:
                value, end = self.parser.parse(self.text, self.position)
            except json.JSONDecodeError as error:
                if self.ended or not self._cut_off(error):
                    place = self.line + self.text.count("\n", self.position, error.pos)
                    found = f"{error.msg} (line {place})"
                    raise RecordProblem(f"invalid JSON: {found}; it must be one valid value") from error
            else:
                if self.ended or end < len(self.text):
                    self.advance(end)
                    return value
            self.fill()

    def _cut_off(self, error: json.JSONDecodeError) -> bool:
        """Whether the error may only mean that the window ends too early."""
        return error.msg.startswith("Unterminated string") or error.pos >= len(self.text) - len(
            r"\uXXXX\uXXXX"
        )


def _array(window: _Window) -> Iterator[tuple[int, Any]]:
    """The values of a JSON array with the line each starts on."""
    window.advance(window.position + 1)
    if window.peek() == "]":
        return
    while True:
        window.peek()
        line = window.line
        yield line, window.value()
        mark = window.peek()
        window.advance(window.position + 1)
        if mark == "]":
            break
        if mark != ",":
            found = f"{mark!r}" if mark else "the end of the file"
            raise RecordProblem(f"invalid JSON: expected ',' or ']' after a record, found {found}")
    if window.peek():
        raise RecordProblem(
            f"invalid JSON: {window.peek()!r} after the array; the closing ']' must be the end"
        )


def read_json(path: Path, name: str) -> Iterator[RawRow]:
    """Read a JSON array of records, or JSON lines that carry the suffix ``.json``.

    Args:
        path: the file.
        name: how the file is called in ``record_id``.

    Yields:
        One row or problem per record; after broken syntax inside an array nothing further can be read.
    """
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as handle:
        window = _Window(handle)
        first = window.peek()
        if first == "[":
            try:
                for line, value in _array(window):
                    yield as_row(f"{name}:{line}", value)
            except RecordProblem as problem:
                yield RawRow(
                    f"{name}:{window.line}", problem=f"{problem}; what follows in this file cannot be read"
                )
    if first and first != "[":
        yield from read_json_lines(path, name)
