"""Lists of messages -> turns, with everything that a message can say of itself.

Unusual: no key of a message is passed over. It is read, or the message is refused for it, or it is named as
not read. Two habits of naming are known: ``role`` and ``content``, and ShareGPT's ``from`` and ``value``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from llama_adapter.data.fields import Parsed, Row, filled, known_role, list_of, text_of
from llama_adapter.data.keys import HARMLESS
from llama_adapter.data.records import RecordProblem, Turn
from llama_adapter.data.tools import CALL_KEYS, calls_of
from llama_adapter.media import MARKS, MediaItem, find_media, marks_in, part_media, part_modality

MESSAGE_ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user",), "user"),
    **dict.fromkeys(("assistant",), "assistant"),
    **dict.fromkeys(("tool", "function"), "tool"),
}
"""Role names of ``messages`` and what they mean here."""

SHAREGPT_ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "bard", "bing", "model", "function_call"), "assistant"),
    **dict.fromkeys(("tool", "function", "observation", "function_response"), "tool"),
}
"""Role names of ``conversations``; LLaMA-Factory's ``function_call`` is an answer that consists of calls."""

LOSS_MARKS = ("weight", "loss", "train", "training", "loss_weight")
"""Keys by which OpenAI's, axolotl's and LLaMA-Factory's data say whether a message bears loss."""
REASONING = ("reasoning_content", "reasoning", "thinking")
"""Keys by which templates take what an assistant thought."""
REFUSED = ("train_detail", "training_detail", "mask", "masked", "prefix")
"""Keys that would change what is learned in a way that is not known here."""


@dataclass(frozen=True)
class Naming:
    """How the messages of a list name their parts."""

    role: str
    text: str
    roles: Mapping[str, str]


OPENAI = Naming("role", "content", MESSAGE_ROLES)
SHAREGPT = Naming("from", "value", SHAREGPT_ROLES)


@dataclass
class _Content:
    """What a message says."""

    text: str = ""
    media: list[MediaItem] = field(default_factory=list)
    reasoning: str = ""
    unread: set[str] = field(default_factory=set)

    def add_text(self, text: str) -> None:
        """Append a text; marks in it stand for media of the row."""
        self.text += text
        self.media += [MediaItem(modality, None) for modality in marks_in(text)]


def message_turns(messages: list[Row], naming: Naming = OPENAI, place: str = "messages") -> Parsed:
    """Read a list of messages.

    Args:
        messages: the list.
        naming: how they name role and text.
        place: what the list is called, to name keys that are not read.

    Returns:
        One turn per message, the media inside them, and the keys that were not read.

    Raises:
        RecordProblem: a key is missing or would change the meaning, a value is no text, or a role is unknown.
    """
    parsed, unread = Parsed(), dict[str, None]()
    for number, message in enumerate(messages, start=1):
        turn, content = _message(message, naming, number)
        parsed.turns.append(turn)
        parsed.media += content.media
        unread |= dict.fromkeys(f"{place}.{key}" for key in sorted(content.unread))
    parsed.unread = list(unread)
    return parsed


def _message(message: Row, naming: Naming, number: int) -> tuple[Turn, _Content]:
    """One message."""
    name = text_of(message, naming.role)
    role = known_role(name, naming.roles, number)
    for key in sorted(filled(message) & set(REFUSED)):
        raise RecordProblem(
            f"message {number} has the key {key!r}, which is not supported; it must mark whole messages with "
            f"one of: {', '.join(LOSS_MARKS)}"
        )
    calls = calls_of(message)
    if name == "function_call":
        calls, message = (
            calls_of({"function_call": text_of(message, naming.text)}),
            {**message, naming.text: ""},
        )
    content = _content(message, naming, bool(calls))
    learned = _learned(message, role, number)
    reasoning = reasoning_of(message) or content.reasoning
    if role != "assistant" and (calls or reasoning):
        what = "calls functions" if calls else "has thoughts"
        raise RecordProblem(f"message {number} of the role {name!r} {what}; it must be the assistant's")
    read = {naming.role, naming.text, *LOSS_MARKS, *REASONING, *CALL_KEYS}
    details = {}
    if role == "tool":
        details = {key: str(message[key]) for key in ("tool_call_id", "name") if key in filled(message)}
    content.unread |= filled(message) - read - set(details) - HARMLESS - _shown_with(message, content)
    return Turn(role, content.text, "", learned, reasoning, calls, **details), content


def _content(message: Row, naming: Naming, may_lack: bool) -> _Content:
    """The content of a message: a text, or a list of typed parts; none beside calls."""
    found, value = _Content(), message.get(naming.text)
    if may_lack and value is None:
        return found
    if not isinstance(value, list):
        found.add_text(text_of(message, naming.text))
        return found
    for part in list_of(message, naming.text):
        _add_part(found, part, naming.text)
    return found


def _add_part(found: _Content, part: Row, key: str) -> None:
    """Append one part of a content."""
    kind, read = text_of(part, "type"), {"type"}
    if kind in ("text", "input_text", "output_text"):
        found.add_text(text_of(part, "text"))
        read |= {"text"}
    elif kind in ("thinking", "reasoning"):
        found.reasoning += text_of(part, kind if kind in part else "text")
        read |= {kind, "text"}
    elif modality := part_modality(part):
        media = part_media(part)
        found.text += next((mark for mark, of in MARKS.items() if of == modality), "")
        found.media += media.items
        read |= media.keys
    else:
        raise RecordProblem(f"a message part has the type {kind!r}; it must be text, image, audio or video")
    found.unread |= {f"{key}.{name}" for name in filled(part) - read}


def _shown_with(message: Row, content: _Content) -> set[str]:
    """Media that a message names beside its content, which take the places of its marks, or stand before it.

    Returns:
        The keys that name them.
    """
    own = find_media({key: value for key, value in message.items() if key not in LOSS_MARKS})
    for item in own.items:
        slot = MediaItem(item.modality, None)
        if slot in content.media:
            content.media[content.media.index(slot)] = item
        else:
            raise RecordProblem(
                f"a message names {item} beside its content, which has no mark for it; put "
                f"<{item.modality}> where it belongs, or make it a part of the content"
            )
    return set(own.keys)


def _learned(message: Row, role: str, number: int) -> bool:
    """Whether a message bears loss by its marks; an assistant's does unless they say otherwise."""
    marks = {key: message[key] for key in LOSS_MARKS if message.get(key) is not None}
    for key, value in marks.items():
        if isinstance(value, str) or value not in (0, 1):
            raise RecordProblem(
                f"message {number} has {key} {value!r}; it must be true or false (1 or 0): answers are "
                "learned or not, never in part"
            )
    values = {bool(value) for value in marks.values()}
    if len(values) > 1:
        raise RecordProblem(f"message {number} has {marks}, which contradict each other; use one of them")
    if role != "assistant":
        if True in values:
            raise RecordProblem(
                f"message {number} of the role {role!r} has {marks}; only answers are learned, so it must be "
                "false"
            )
        return True
    return values != {False}


def reasoning_of(row: Row) -> str:
    """What an assistant thought, under whichever name; empty without.

    Raises:
        RecordProblem: two names hold different thoughts, or one holds no text.
    """
    held = {text_of(row, key): key for key in REASONING if key in filled(row)}
    if len(held) > 1:
        raise RecordProblem(
            f"{' and '.join(map(repr, held.values()))} differ; thoughts must stand in one of them"
        )
    return next(iter(held), "")
