"""The canonical record: who said what, which media belong to it, and where in which file it stands.

Every format is read into this shape and everything after the readers knows only this shape. An Alpaca
``input`` stays apart (``Turn.context``) because the published prompts give it a block of its own. Nothing
here knows files, templates or tokens.
"""

from dataclasses import dataclass, field
from typing import Any

ROLES = ("system", "user", "assistant", "tool")
"""The roles a turn can have; formats map their own names onto these."""

MEDIA_PLACEHOLDER = "<image>"
"""Marks in a turn's text where a medium stands, as LLaVA data write it."""


class RecordProblem(ValueError):
    """One record cannot be used: the message is the reason, without the place.

    The readers catch it and keep it beside ``file:line``, so that one bad record never hides the others.
    """


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
    """One training example before any template."""

    record_id: str
    """``file:line`` of the record, counted from 1."""
    turns: list[Turn]
    """The conversation; the last turn is the assistant's."""
    media: list[str] = field(default_factory=list)
    """Paths of the images (or other media) in the order of their placeholders."""
    tools: list[dict[str, Any]] = field(default_factory=list)
    """Functions that the assistant may call, as JSON schemas; for the chat template's ``tools`` argument."""


@dataclass(frozen=True)
class RawRow:
    """What a container hands on: a row as the file has it, or the reason why there is none."""

    record_id: str
    """``file:line`` of the row."""
    row: Any = None
    """The row as parsed; formats expect a dict."""
    problem: str = ""
    """Why the row could not be parsed; empty when it could."""


def checked_turns(turns: list[Turn]) -> list[Turn]:
    """Check what every template needs, and leave out a tail that nobody answered.

    Args:
        turns: the conversation as read.

    Returns:
        The turns up to the last answer.

    Raises:
        RecordProblem: there is no answer, an answer is empty, a system turn stands late, or an answer
            comes first.
    """
    roles = [turn.role for turn in turns]
    if "assistant" not in roles:
        raise RecordProblem(
            f"there must be an assistant turn to learn from; found: {', '.join(roles) or 'no turns'}"
        )
    turns = turns[: len(roles) - roles[::-1].index("assistant")]
    if "user" not in roles[: roles.index("assistant")]:
        raise RecordProblem(f"a user turn must come before the first answer; found: {', '.join(roles)}")
    for number, turn in enumerate(turns, start=1):
        if turn.role == "assistant" and not turn.text.strip():
            raise RecordProblem(f"the answer in turn {number} is empty ({turn.text!r}); it must have text")
        if turn.role == "system" and number > 1:
            raise RecordProblem(f"turn {number} is a system turn; it must be the first turn")
    return turns
