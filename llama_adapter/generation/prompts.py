"""Prompt files: from lines or JSON records to conversations that end with the user's turn.

Unlike the readers of training data, an answer is not needed: trailing assistant turns are left out, so a
training or evaluation file can be asked as it is. It knows neither templates nor models.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_adapter.data import Turn
from llama_adapter.data.fields import Parsed, listed, media_paths, message_turns
from llama_adapter.data.formats import images_of, read_conversations
from llama_adapter.data.records import RecordProblem
from llama_adapter.errors import UserError
from llama_adapter.media import MODALITIES, Mix, as_shown, read_inputs


@dataclass(frozen=True)
class Prompt:
    """One conversation to continue."""

    place: str
    """`file:line`, counted from 1."""
    turns: list[Turn]
    """Ends with the user's turn."""
    adapter: str | None = None
    """Name of the adapter that answers; None for the one that is chosen for all."""
    id: str | int | None = None
    """The record's own id, by which its answer is found again; None where it has none."""
    image: Mix | str | None = None
    """What is shown with it: the file of an image, or inputs of other modalities or with weights."""


def read_prompts(path: Path, system: str | None = None) -> list[Prompt]:
    """Reads a prompt file.

    Args:
        path: `.jsonl` and `.json` hold records, anything else one prompt per line; empty lines are left out.
        system: a system message for conversations that have none.

    Raises:
        UserError: the file cannot be read, is empty, or a record has no prompt; file and line are named.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError(f"{path}: {reason}. Provide a file with prompts.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}. Use UTF-8 text.") from error
    readers = {".jsonl": _json_lines, ".json": _json_array}
    rows = readers.get(path.suffix.lower(), _plain_lines)(text, str(path))
    prompts = [_prompt(row, place, path.parent, system) for place, row in rows]
    if not prompts:
        raise UserError(f"{path}: holds no prompts. Use one per line, or JSON records.")
    return prompts


def with_system(turns: list[Turn], system: str | None) -> list[Turn]:
    """Puts a system message first, unless there is none or the conversation has its own."""
    if system is None or turns[0].role == "system":
        return turns
    return [Turn("system", system), *turns]


def _plain_lines(text: str, path: str) -> Iterator[tuple[str, Any]]:
    """Each line that is not empty, with its place."""
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield f"{path}:{number}", {"prompt": line}


def _json_lines(text: str, path: str) -> Iterator[tuple[str, Any]]:
    """Each line's JSON value, with its place."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield f"{path}:{number}", _parse_json(line, f"{path}:{number}")


def _json_array(text: str, path: str) -> Iterator[tuple[str, Any]]:
    """Each item of a JSON array, with its number."""
    rows = _parse_json(text, path)
    if not isinstance(rows, list):
        raise UserError(f"{path}: holds a {type(rows).__name__}. Use an array of records, or .jsonl.")
    for number, row in enumerate(rows, start=1):
        yield f"{path}:{number}", row


def _parse_json(text: str, place: str) -> Any:
    """One JSON value."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{place}: {text[:40]!r} is not valid JSON ({error}). Use one JSON record."
        ) from error


def _prompt(row: Any, place: str, folder: Path, system: str | None) -> Prompt:
    """One prompt from its record; an image lies beside the file."""
    turns, images = _turns(row, place)
    try:
        inputs = _inputs(row)
        image = as_shown(read_inputs({**inputs, "image": [*images, *inputs.get("image", [])]}, folder))
    except UserError as error:
        raise UserError(f"{place}: {error}") from error
    asked = with_system(turns, system)
    return Prompt(place, asked, _adapter(row, place), _id(row, place), image)


def _inputs(row: Any) -> dict[str, list[str]]:
    """The field `inputs` of a record: modality -> files or texts, each with or without a weight."""
    given = row.get("inputs") if isinstance(row, dict) else None
    if given is None:
        return {}
    known = isinstance(given, dict) and set(given) <= set(MODALITIES)
    found = {name: listed(value) for name, value in given.items()} if known else {}
    if not known or not all(isinstance(one, str) for values in found.values() for one in values):
        raise UserError(f"inputs is {given!r}. Use files or texts under some of {MODALITIES}.")
    return found


def _turns(row: Any, place: str) -> tuple[list[Turn], list[str]]:
    """The conversation of one record, up to the last question, and its images."""
    if isinstance(row, str):
        row = {"prompt": row}
    reader = next((read for key, read in _READERS.items() if isinstance(row, dict) and key in row), None)
    if reader is None:
        raise UserError(
            f"{place}: {str(row)[:80]!r} has no prompt. Use one of the keys {', '.join(_READERS)}."
        )
    try:
        parsed = reader(row)
        parsed.media += images_of(row)
        turns, images = parsed.turns, media_paths(parsed)
    except RecordProblem as problem:
        raise UserError(f"{place}: {problem}. Use texts for role and content.") from problem
    except (KeyError, TypeError) as error:
        raise UserError(f"{place}: {error} in {str(row)[:80]!r}. Use texts for role and content.") from error
    while turns and turns[-1].role != "user":
        turns.pop()
    if not turns:
        raise UserError(f"{place}: {str(row)[:80]!r} has no question. Add a user's turn.")
    return turns, images


def _adapter(row: Any, place: str) -> str | None:
    """The adapter that a record names, if it names one."""
    name = row.get("adapter") if isinstance(row, dict) else None
    if name is None or isinstance(name, str):
        return name
    raise UserError(f"{place}: the adapter {name!r} is no name. Use a text.")


def _id(row: Any, place: str) -> str | int | None:
    """The id that a record has of its own, if it has one."""
    own = row.get("id") if isinstance(row, dict) else None
    if own is None or (isinstance(own, str | int) and not isinstance(own, bool)):
        return own
    raise UserError(f"{place}: the id {own!r} names no record. Use a text or a whole number.")


def _turn(role: Any, text: Any, context: Any = "") -> Turn:
    """A turn, if all of it is text."""
    for value in (role, text, context):
        if not isinstance(value, str):
            raise TypeError(f"{value!r} is not a text: use a string")
    return Turn(role, text, context)


def _from_messages(row: dict[str, Any]) -> Parsed:
    """Chat messages with role and content; content may be a list of texts and images."""
    if any(isinstance(message["content"], list) for message in row["messages"]):
        return message_turns(row["messages"])
    return Parsed([_turn(message["role"], message["content"]) for message in row["messages"]])


def _from_conversations(row: dict[str, Any]) -> Parsed:
    """LLaVA's `conversations` of `from` and `value`."""
    return Parsed(read_conversations(row, "").turns)


def _from_instruction(row: dict[str, Any]) -> Parsed:
    """An Alpaca record; its `input` may be missing, null or empty."""
    return Parsed([_turn("user", row["instruction"], row.get("input") or "")])


def _from_prompt(row: dict[str, Any]) -> Parsed:
    """A single prompt."""
    return Parsed([_turn("user", row["prompt"])])


_READERS: dict[str, Callable[[dict[str, Any]], Parsed]] = {
    "messages": _from_messages,
    "conversations": _from_conversations,
    "instruction": _from_instruction,
    "prompt": _from_prompt,
}
"""Key a record is known by -> what turns it into a conversation, in this order."""
