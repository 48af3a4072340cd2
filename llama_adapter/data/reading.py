"""One way from a row to a record, for training and for asking.

A format reads the conversation; all that records of any format may have besides is read here: a system text,
earlier turns, functions, thoughts, media beside the text. Marks and media must agree, and every key is
accounted for. Training then ends at the last answer, asking before it; nothing else differs. Files are not
known here.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from llama_adapter.data.fields import Parsed, Row, filled, sound_text, text_of
from llama_adapter.data.formats import Format, find_format, known_formats
from llama_adapter.data.keys import refuse_preferences, unread_keys
from llama_adapter.data.messages import REASONING, message_turns, reasoning_of
from llama_adapter.data.records import RawRow, Record, RecordProblem, Turn, asked_turns, brief, checked_turns
from llama_adapter.data.tools import TOOL_KEYS, tools_of
from llama_adapter.errors import UserError
from llama_adapter.media import MARKS, FoundMedia, MediaItem, find_media, marks_in

SYSTEM = ("system", "system_prompt", "developer")
"""Keys of a record that hold a system text."""


@dataclass(frozen=True)
class Habits:
    """How the records of a source differ from what their format says."""

    columns: tuple[tuple[str, str], ...] = ()
    """Other names for columns, as (expected, yours)."""
    media_name: str | None = None
    """File name of an image that records give only the number of."""
    marks: Literal["media", "text"] = "media"
    """What ``<image>`` is in a record without media: a mistake, or text."""
    ignore: tuple[str, ...] = ()
    """Keys that are knowingly not read."""


def read_record(form: Format, raw: RawRow, habits: Habits = Habits()) -> Record:
    """Turn one row into a record to learn from.

    Args:
        form: how the row is laid out.
        raw: the row as its container handed it on, without a problem.
        habits: in what its source differs.

    Returns:
        The record; its last turn is the last answer.

    Raises:
        RecordProblem: the row is not usable; the message says why.
    """
    record, lacks = _read(form, _renamed(raw, habits), raw.record_id, habits)
    if lacks:
        raise RecordProblem(lacks)
    return _cut(record, checked_turns(record.turns))


def read_question(raw: RawRow, habits: Habits = Habits()) -> Record:
    """Turn one row into a record to ask: read as for training, without the answers at its end.

    Args:
        raw: the row as its container handed it on, without a problem.
        habits: in what its source differs.

    Returns:
        The record; its last turn is what is asked.

    Raises:
        RecordProblem: the row is of no known format, or not usable; the message says why.
    """
    row = _renamed(raw, habits)
    held = filled(row)
    form = find_format(held, answered=True) or find_format(held, answered=False)
    if form is None:
        refuse_preferences(row)
        raise RecordProblem(f"{brief(row, 80)!r} has no prompt of a known format; {known_formats()}")
    record, _ = _read(form, row, raw.record_id, habits)
    return _cut(record, asked_turns(record.turns))


def rename(row: Row, columns: Sequence[tuple[str, str]]) -> Row:
    """Give the columns of a row the names a format expects.

    Args:
        row: as read.
        columns: (expected, yours).

    Returns:
        The row under the expected names; columns not mentioned keep theirs.
    """
    named = {expected: row[yours] for expected, yours in columns if yours in row}
    theirs = {yours for _, yours in columns}
    return {key: value for key, value in row.items() if key not in theirs} | named


def without_marks(turn: Turn, modalities: Collection[str]) -> Turn:
    """The turn without the marks of some modalities and the line breaks that set them apart.

    Args:
        turn: of a record.
        modalities: whose marks go.
    """
    marks = "|".join(re.escape(mark) for mark, modality in MARKS.items() if modality in modalities)
    if not marks:
        return turn
    pattern = rf"(?:{marks})\n?|\n(?:{marks})$"
    return replace(turn, text=re.sub(pattern, "", turn.text), context=re.sub(pattern, "", turn.context))


def _renamed(raw: RawRow, habits: Habits) -> Row:
    """The row under the names that formats know, without what is knowingly not read."""
    renamed = rename(raw.row, habits.columns)
    return {key: value for key, value in renamed.items() if key not in habits.ignore}


def _read(form: Format, row: Row, record_id: str, habits: Habits) -> tuple[Record, str]:
    """The whole conversation of a row, and why there is no answer in it, if there is none."""
    refuse_preferences(row, form.keys)
    try:
        parsed = form.read(row, record_id)
        found = find_media({k: v for k, v in row.items() if k not in parsed.read}, habits.media_name)
    except UserError as error:
        raise RecordProblem(str(error).removesuffix(".")) from error
    front = _front(row)
    turns = _with_reasoning(row, _joined(front.turns, parsed.turns))
    slots = front.media + (parsed.media or _slots(parsed.turns))
    read = {*form.keys, *parsed.read, *found.keys, *SYSTEM, "history", *TOOL_KEYS, *REASONING}
    inside = [key for key in (*front.unread, *parsed.unread) if key not in habits.ignore]
    return Record(
        record_id,
        turns,
        _media(turns, slots, found, habits),
        tools_of(row),
        inside + unread_keys(filled(row), read),
    ), parsed.lacks


def _front(row: Row) -> Parsed:
    """What a row says before its own conversation: a system text and earlier turns."""
    texts = dict.fromkeys(text_of(row, key) for key in SYSTEM if key in filled(row))
    if len(texts) > 1:
        raise RecordProblem(f"the record has {len(texts)} system texts; it must have one")
    parsed = Parsed([Turn("system", text) for text in texts])
    history = row.get("history") or []
    if isinstance(history, list) and history and isinstance(history[0], dict):
        earlier = message_turns(history, place="history")
        return Parsed(parsed.turns + earlier.turns, earlier.media, unread=earlier.unread)
    for pair in history if isinstance(history, list) else [history]:
        if (
            not isinstance(pair, list | tuple)
            or len(pair) != 2
            or not all(isinstance(one, str) for one in pair)
        ):
            raise RecordProblem(f"'history' holds {brief(pair)!r}; it must hold pairs of question and answer")
        question, answer = (sound_text(text, "history") for text in pair)
        parsed.turns += [Turn("user", question), Turn("assistant", answer)]
    parsed.media = _slots(parsed.turns)
    return parsed


def _joined(front: list[Turn], own: list[Turn]) -> list[Turn]:
    """Earlier turns before a record's own, behind the system text, which must be one."""
    if front and own and own[0].role == "system":
        if front[0].role == "system" and front[0].text != own[0].text:
            raise RecordProblem("the record has a system text beside its messages and another among them")
        return [own[0], *(turn for turn in front if turn.role != "system"), *own[1:]]
    return front + own


def _with_reasoning(row: Row, turns: list[Turn]) -> list[Turn]:
    """Thoughts that stand beside the conversation belong to its only answer."""
    thoughts = reasoning_of(row)
    answers = [number for number, turn in enumerate(turns) if turn.role == "assistant"]
    if not thoughts or not answers:
        return turns
    last = turns[answers[-1]]
    if len(answers) > 1 or last.reasoning:
        raise RecordProblem(
            "thoughts stand beside several answers; they must stand in the message they lead to"
        )
    return [*turns[: answers[-1]], replace(last, reasoning=thoughts), *turns[answers[-1] + 1 :]]


def _slots(turns: Sequence[Turn]) -> list[MediaItem]:
    """A medium without content for each mark in the turns."""
    return [MediaItem(modality, None) for turn in turns for modality in marks_in(turn.full_text)]


def _media(turns: list[Turn], slots: list[MediaItem], found: FoundMedia, habits: Habits) -> list[MediaItem]:
    """The media of a record, those that it names beside the conversation in the places of the marks.

    Raises:
        RecordProblem: marks and media do not agree in number.
    """
    held = [*slots, *found.items]
    if habits.marks == "text" and all(item.content is None for item in held):
        return []
    media: list[MediaItem] = []
    for modality in dict.fromkeys(item.modality for item in held):
        named = [item for item in found.items if item.modality == modality]
        places = [item for item in slots if item.modality == modality]
        empty = [item for item in places if item.content is None]
        marked = _slots(turns).count(MediaItem(modality, None))
        count = len(named) + len(places) - len(empty)
        if marked not in (0, count) or (empty and len(empty) != len(named)):
            raise RecordProblem(_disagreement(modality, count, max(marked, len(places))))
        rest = iter(named)
        media += [next(rest) if item.content is None else item for item in places]
        media += rest
    return media


def _disagreement(modality: str, count: int, marked: int) -> str:
    """What stands against marks and media of unequal number."""
    mark = next((mark for mark, kind in MARKS.items() if kind == modality), modality)
    if not count:
        return (
            f"{mark} occurs {marked} times, but the record names no {modality}; it must name one for each "
            f"(columns says in which column), or set marks: text where {mark} is a word of the text"
        )
    return (
        f"the record names {count} of the kind {modality}, but {mark} occurs {marked} times; it must occur "
        "once for each or not at all"
    )


def _cut(record: Record, turns: list[Turn]) -> Record:
    """The record with its first turns, and the media whose marks stand in them."""
    kept, total = _slots(turns), _slots(record.turns)
    media = list[MediaItem]()
    for modality in dict.fromkeys(item.modality for item in record.media):
        items = [item for item in record.media if item.modality == modality]
        mark = MediaItem(modality, None)
        media += items[: kept.count(mark)] if total.count(mark) else items
    return replace(record, turns=turns, media=media)
