"""Prompt files: records of any format, read as training reads them, up to what is to be answered.

Answers at the end are left out, so a training or evaluation file can be asked as it is. It knows neither
templates nor models.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llama_adapter.data import Turn
from llama_adapter.data.canonical import KEPT_MEDIA
from llama_adapter.data.containers import CONTAINERS, read_text_lines
from llama_adapter.data.reading import Habits, read_question, without_marks
from llama_adapter.data.records import RawRow, Record, RecordProblem
from llama_adapter.data.report import said_unread
from llama_adapter.errors import UserError
from llama_adapter.media import MediaItem, Mix, as_file, as_shown, read_input

READ_HERE = frozenset({"adapter"})
"""Keys of a record that mean something to ``generate`` alone."""


@dataclass(frozen=True)
class Prompt:
    """One conversation to continue."""

    place: str
    """`file:line`, counted from 1."""
    turns: list[Turn]
    """Ends with what is to be answered: the user's turn, or a tool's."""
    adapter: str | None = None
    """Name of the adapter that answers; None for the one that is chosen for all."""
    id: str | int | None = None
    """The record's own id, by which its answer is found again; None where it has none."""
    image: Mix | str | None = None
    """What is shown with it: the file of an image, or inputs of other modalities or with weights."""
    tools: list[dict[str, Any]] = field(default_factory=list)
    """Functions that may be called, for the chat template."""
    unread: list[str] = field(default_factory=list)
    """Keys of its record that were not read."""


def read_prompts(path: Path, system: str | None = None, habits: Habits = Habits()) -> list[Prompt]:  # noqa: B008
    """Reads a prompt file.

    Args:
        path: a file of records, as training takes them; with another suffix one prompt per line. Empty lines
            are left out.
        system: a system message for conversations that have none.
        habits: other names for columns, and how images are called.

    Raises:
        UserError: the file cannot be read, is empty, or a record has no prompt; file and line are named.
    """
    rows = CONTAINERS.get(path.suffix.lower(), read_text_lines)(path, str(path))
    try:
        prompts = [_prompt(raw, path.parent, system, habits) for raw in rows]
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError(f"{path}: {reason}. Provide a file with prompts.") from error
    if not prompts:
        raise UserError(f"{path}: holds no prompts. Use one per line, or records.")
    return prompts


def with_system(turns: list[Turn], system: str | None) -> list[Turn]:
    """Puts a system message first, unless there is none or the conversation has its own."""
    if system is None or turns[0].role == "system":
        return turns
    return [Turn("system", system), *turns]


def unread_line(prompts: Iterable[Prompt]) -> str:
    """What prompts' records hold that was not read, in one line; empty where all was."""
    return said_unread(Counter(key for prompt in prompts for key in prompt.unread))


def _prompt(raw: RawRow, folder: Path, system: str | None, habits: Habits) -> Prompt:
    """One prompt from its row; an image lies beside the file."""
    bare = isinstance(raw.row, str)  # a text in a list of records is a prompt
    row = {"prompt": raw.row} if bare else raw.row
    try:
        if raw.problem and not bare:
            raise RecordProblem(raw.problem)
        record = read_question(RawRow(raw.record_id, row), habits)
        image = as_shown([_item(item, folder) for item in record.media])
        adapter, own = _adapter(row), _id(row)
    except UserError as error:
        raise UserError(f"{raw.record_id}: {error}") from error
    except RecordProblem as problem:
        raise UserError(f"{raw.record_id}: {problem}. Repair the record, or leave it out.") from problem
    unread = [key for key in record.unread if key not in READ_HERE]
    return Prompt(
        raw.record_id, with_system(_turns(record), system), adapter, own, image, record.tools, unread
    )


def _turns(record: Record) -> list[Turn]:
    """The turns; what is shown besides images has no place in a text."""
    others = {item.modality for item in record.media} - {"image"}
    return [without_marks(turn, others) for turn in record.turns]


def _item(item: MediaItem, folder: Path) -> MediaItem:
    """A medium whose file is there."""
    if isinstance(item.content, bytes):
        return MediaItem(item.modality, as_file(item, folder, KEPT_MEDIA))
    return read_input(item.modality, item.content, folder)


def _adapter(row: dict[str, Any]) -> str | None:
    """The adapter that a record names, if it names one."""
    name = row.get("adapter")
    if name is None or isinstance(name, str):
        return name
    raise RecordProblem(f"the adapter {name!r} is no name; it must be a text")


def _id(row: dict[str, Any]) -> str | int | None:
    """The id that a record has of its own, if it has one."""
    own = row.get("id")
    if own is None or (isinstance(own, str | int) and not isinstance(own, bool)):
        return own
    raise RecordProblem(f"the id {own!r} names no record; it must be a text or a whole number")
