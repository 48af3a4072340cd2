"""The canonical record: who said what, which media belong to it, and where in which file it stands.

Every format is read into this shape and everything after the readers knows only this shape. What training
learns from and what a model is asked are two ends of the same turns. An Alpaca
``input`` stays apart (``Turn.context``) because the published prompts give it a block of its own. Nothing
here knows files, templates or tokens.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from llama_adapter.media import MediaItem

ROLES = ("system", "user", "assistant", "tool")
"""The roles a turn can have; formats map their own names onto these."""

MEDIA_PLACEHOLDER = "<image>"
"""Marks in a turn's text where a medium stands, as LLaVA data write it."""


class RecordProblem(ValueError):
    """One record cannot be used: the message is the reason, without the place.

    The readers catch it and keep it beside ``file:line``, so that one bad record never hides the others.
    """


def brief(value: Any, characters: int = 40) -> str:
    """The beginning of a value, for messages."""
    try:
        return str(value)[:characters]
    except RecursionError:
        return f"{type(value).__name__} of many levels"


@dataclass(frozen=True)
class Turn:
    """One contribution to a conversation."""

    role: str
    """One of ``ROLES``."""
    text: str
    """What was said."""
    context: str = ""
    """What Alpaca data call ``input``: material the instruction works on, empty for most turns."""
    learned: bool = True
    """Whether an assistant's turn bears loss; the record may say of single turns that they do not."""
    reasoning: str = ""
    """What an assistant thought before it answered (``reasoning_content``); for the template's own place."""
    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    """Calls that an assistant made, as the chat template takes them; for the template's own place."""
    tool_call_id: str = ""
    """Of a ``tool`` turn: which call it answers."""
    name: str = ""
    """Of a ``tool`` turn: which function answered."""

    @property
    def full_text(self) -> str:
        """The text with its context, for templates that have no block of their own for it."""
        return f"{self.text}\n\n{self.context}" if self.context else self.text


@dataclass(frozen=True)
class Record:
    """One example before any template."""

    record_id: str
    """``file:line`` of the record, counted from 1."""
    turns: list[Turn]
    """The conversation; its last turn is the assistant's for training, another's for asking."""
    media: list[MediaItem] = field(default_factory=list)
    """What is shown with it; those of one modality in the order of their marks."""
    tools: list[dict[str, Any]] = field(default_factory=list)
    """Functions that the assistant may call, as JSON schemas; for the chat template's ``tools`` argument."""
    unread: list[str] = field(default_factory=list)
    """Keys that hold something and were not read; ``messages.KEY`` for those inside of messages."""


@dataclass(frozen=True)
class RawRow:
    """What a container hands on: a row as the file has it, or the reason why there is none."""

    record_id: str
    """``file:line`` of the row."""
    row: Any = None
    """The row as parsed; formats expect a dict. A text alone is a problem, and still what a prompt may be."""
    problem: str = ""
    """Why the row could not be parsed; empty when it could."""


def stored_turn(turn: Turn) -> dict[str, Any]:
    """A turn as a row of the table of records; calls are JSON, since their arguments vary in shape."""
    return asdict(turn) | {"tool_calls": stored_json(turn.tool_calls)}


def turn_of(stored: Mapping[str, Any]) -> Turn:
    """A turn out of the table of records."""
    return Turn(**{**stored, "tool_calls": json_of(stored["tool_calls"])})


def stored_json(values: list[dict[str, Any]]) -> str:
    """Objects as the table of records holds them; nothing for none."""
    return json.dumps(values, ensure_ascii=False) if values else ""


def json_of(stored: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Objects out of the table of records, or such as are objects already."""
    return json.loads(stored) if stored and isinstance(stored, str) else list(stored or [])


def checked_turns(turns: list[Turn]) -> list[Turn]:
    """Check what every template needs, and leave out a tail that nobody answered.

    Args:
        turns: the conversation as read.

    Returns:
        The turns up to the last answer.

    Raises:
        RecordProblem: there is no answer, none to learn or an empty one, a system turn stands late, or an
            answer comes first.
    """
    roles = [turn.role for turn in turns]
    if "assistant" not in roles:
        raise RecordProblem(
            f"there must be an assistant turn to learn from; found: {', '.join(roles) or 'no turns'}"
        )
    _check_system(turns)  # of all turns, as when they are asked
    turns = turns[: len(roles) - roles[::-1].index("assistant")]
    if "user" not in roles[: roles.index("assistant")]:
        raise RecordProblem(f"a user turn must come before the first answer; found: {', '.join(roles)}")
    for number, turn in enumerate(turns, start=1):
        if turn.role == "assistant" and not (turn.text.strip() or turn.tool_calls):
            raise RecordProblem(f"the answer in turn {number} is empty ({turn.text!r}); it must have text")
    if not any(turn.learned for turn in turns if turn.role == "assistant"):
        raise RecordProblem("no answer is to be learned by the record's loss marks; one at least must be")
    return turns


def asked_turns(turns: list[Turn]) -> list[Turn]:
    """What a model is asked: the conversation without the answers at its end.

    Args:
        turns: the conversation as read.

    Returns:
        The turns up to the last that is no assistant's.

    Raises:
        RecordProblem: nothing is asked, or a system turn stands late.
    """
    last = next((at for at in range(len(turns), 0, -1) if turns[at - 1].role != "assistant"), 0)
    if not any(turn.role == "user" for turn in turns[:last]):
        found = ", ".join(turn.role for turn in turns) or "no turns"
        raise RecordProblem(f"there is no question; add a user's turn (found: {found})")
    _check_system(turns)
    return turns[:last]


def _check_system(turns: list[Turn]) -> None:
    """Refuse a system turn behind others."""
    for number, turn in enumerate(turns, start=1):
        if turn.role == "system" and number > 1:
            raise RecordProblem(f"turn {number} is a system turn; it must be the first turn")
