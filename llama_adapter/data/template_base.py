"""What a template is: turns in, one text out, with the character spans of the answers.

A template only builds text. Which tokens carry loss follows from the spans and the tokenizer's offsets
(``encoding.py``), never from searching the text. ``render_prompt`` gives what the model is shown at inference
and is a prefix of the training text.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from llama_adapter.data.records import MEDIA_PLACEHOLDER, RecordProblem, Turn

Tool = dict[str, Any]
"""A function that an assistant may call, as a JSON schema."""
Span = tuple[int, int]
"""First character and the one behind the last."""


@dataclass(frozen=True)
class Rendered:
    """One conversation as text."""

    text: str
    """Everything up to the end of the last answer; what would follow carries no loss."""
    answers: list[Span] = field(default_factory=list)
    """Each answer with its end token: what the model learns to write."""
    contents: list[Span] = field(default_factory=list)
    """What the record, not the template, put into the prompt: the only text that may be cut."""
    open_ends: list[int] = field(default_factory=list)
    """Ends of answers that no end token closes, so that a token might run over them."""
    media: list[int] = field(default_factory=list)
    """Characters in front of which a medium stands, which is no text; see ``lifted_media``."""
    rewritten: list[int] = field(default_factory=list)
    """Turns, counted from 0, that bear loss but have no label here, because the template writes them
    otherwise when the conversation ends with them."""


def lifted_media(rendered: Rendered) -> Rendered:
    """The same conversation with placeholders taken out of its text and their places kept in ``media``."""
    marks = [match.start() for match in re.finditer(re.escape(MEDIA_PLACEHOLDER), rendered.text)]

    def moved(place: int) -> int:
        """Where a character is when placeholders in front of it are gone."""
        return place - sum(min(max(place - mark, 0), len(MEDIA_PLACEHOLDER)) for mark in marks)

    def spans(old: Sequence[Span]) -> list[Span]:
        """Spans of the shorter text."""
        return [(moved(first), moved(last)) for first, last in old]

    return Rendered(
        rendered.text.replace(MEDIA_PLACEHOLDER, ""),
        spans(rendered.answers),
        spans(rendered.contents),
        [moved(end) for end in rendered.open_ends],
        [moved(mark) for mark in marks],
        rendered.rewritten,
    )


def refuse_extras(template: str, turns: Sequence[Turn], tools: Sequence[Tool]) -> None:
    """Refuse what a template of texts alone has no place for.

    Args:
        template: its name.
        turns: the conversation.
        tools: what the assistant may call.

    Raises:
        RecordProblem: there are tools, calls, results of tools or thoughts.
    """
    way = (
        "take it out of the record, or use template chat with a base model whose template has a place for it"
    )
    if tools:
        raise RecordProblem(f"the record has tools, for which the {template} template has no place; {way}")
    for number, turn in enumerate(turns, start=1):
        extras = {
            "is what a tool returned": turn.role == "tool",
            "has tool_calls": bool(turn.tool_calls),
            "has a thought (reasoning_content)": bool(turn.reasoning),
        }
        extra = next((name for name, there in extras.items() if there), None)
        if extra:
            raise RecordProblem(f"turn {number} {extra}; the {template} template has no place for it; {way}")


class Template(ABC):
    """How turns become text for one tokenizer."""

    end_token: str
    """What ends an answer, one token or several; generation stops there."""
    add_special_tokens: bool = True
    """Whether the tokenizer's own begin token is still to be added to the text."""

    @property
    @abstractmethod
    def identity(self) -> str:
        """Everything that decides the text, for cache keys."""

    def jinja(self, begin: str) -> str | None:
        """The same text as a chat template of transformers, for other programs.

        Args:
            begin: the token in front of every text, which chat templates write themselves; may be empty.

        Returns:
            The template; None where it has none that gives the very text.
        """
        return None

    @abstractmethod
    def render(self, turns: Sequence[Turn], tools: Sequence[Tool] = ()) -> Rendered:
        """Build the training text.

        Args:
            turns: a conversation that ends with an answer.
            tools: what the assistant may call.

        Returns:
            The text and its spans.

        Raises:
            RecordProblem: the template has no place for such a conversation.
        """

    @abstractmethod
    def render_prompt(self, turns: Sequence[Turn], tools: Sequence[Tool] = ()) -> str:
        """Build what the model is shown before it answers.

        Args:
            turns: a conversation that ends with the user's turn, or with what a tool returned.
            tools: what the assistant may call.

        Returns:
            A prefix of what ``render`` gives for the same turns with any answer added.

        Raises:
            RecordProblem: the template has no place for such a conversation.
        """

    def answer_text(self, text: str) -> str:
        """The answer in a text that a model wrote behind the prompt, or has begun to write.

        Args:
            text: without special tokens; where the end is no special token, it may be in there.
        """
        return text


class TextEndTemplate(Template):
    """A template whose answers end with plain text, and begin behind a blank."""

    def answer_text(self, text: str) -> str:
        """What stands before the end, or before a text that may become one; without blanks around."""
        whole, end, _ = text.partition(self.end_token)
        if not end:
            begun = range(len(self.end_token) - 1, 0, -1)
            part = next((size for size in begun if whole.endswith(self.end_token[:size])), 0)
            whole = whole[: len(whole) - part]
        return whole.strip()
