"""Record formats: small functions that turn one row into turns, registered with the columns they need.

A reader sees one row as a dict and knows nothing of files. It raises ``RecordProblem`` with the reason; it
never guesses. A new format is one function and one ``register_format`` line; the order of registration is the
order of detection.
"""

import difflib
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from llama_adapter.data.fields import (
    Parsed,
    Row,
    known_role,
    list_of,
    listed,
    media_paths,
    message_turns,
    optional_text,
    sound_text,
    text_of,
)
from llama_adapter.data.records import RawRow, Record, RecordProblem, Turn, checked_turns
from llama_adapter.errors import UserError
from llama_adapter.scienceqa import build_answer, build_prompt, problem_of

RowReader = Callable[[Row, str], Parsed]
"""Takes a row and its ``record_id``; returns turns and media."""

SHAREGPT_ROLES = {
    "system": "system",
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "bard", "bing", "model"), "assistant"),
}
CAPTION_INSTRUCTION = "Generate caption of this image"
"""The fixed instruction of the published captioning recipe."""


@dataclass(frozen=True)
class Format:
    """One known layout of a record."""

    name: str
    """What ``SourceConfig.format`` calls it."""
    needs: tuple[str, ...]
    """Columns a file must have to be detected; ``a|b`` means one of the two."""
    read: RowReader
    """Turns one row into a conversation."""

    def matches(self, columns: set[str]) -> bool:
        """Whether a file with these columns looks like this format."""
        return all(columns & set(need.split("|")) for need in self.needs)


FORMATS: dict[str, Format] = {}
"""Name -> format, in the order of detection."""


def register_format(name: str, *needs: str) -> Callable[[RowReader], RowReader]:
    """Make a record format known; use as a decorator on its reader.

    Args:
        name: what ``SourceConfig.format`` calls it.
        *needs: the columns it is detected by; ``a|b`` means one of the two.

    Returns:
        The decorator, which leaves the reader as it is.
    """

    def keep(read: RowReader) -> RowReader:
        FORMATS[name] = Format(name, needs, read)
        return read

    return keep


def known_formats() -> str:
    """The formats with their columns, for messages."""
    return "; ".join(f"{form.name} ({', '.join(form.needs)})" for form in FORMATS.values())


def detect_format(columns: Iterable[str], place: str) -> Format:
    """Find the format a file is written in by its columns.

    Args:
        columns: the names found.
        place: the file, for the message.

    Returns:
        The first registered format whose columns are all there.

    Raises:
        UserError: no format matches.
    """
    found = set(columns)
    for form in FORMATS.values():
        if form.matches(found):
            return form
    raise UserError(
        f"{place} has the columns {', '.join(sorted(found))}, which is no known format. Set columns to say "
        "which is which, for example {instruction: question, output: answer}; "
        f"known formats: {known_formats()}."
    )


def named_format(name: str) -> Format:
    """Look up a format by name.

    Args:
        name: as in ``SourceConfig.format``.

    Returns:
        The format.

    Raises:
        UserError: there is none of that name.
    """
    if name in FORMATS:
        return FORMATS[name]
    close = difflib.get_close_matches(name, FORMATS, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise UserError(f"format is {name!r}.{hint} Use auto or one of: {', '.join(FORMATS)}.")


def images_of(row: Row) -> list[Any]:
    """What a row names under ``image`` or ``images``."""
    return listed(row.get("image")) + listed(row.get("images"))


@register_format("sharegpt", "conversations")
@register_format("llava", "conversations", "image|images")  # the lower decorator registers first
def read_conversations(row: Row, record_id: str) -> Parsed:
    """``conversations``: a list of ``{"from": ..., "value": ...}``, or of ``role`` and ``content``."""
    system = optional_text(row, "system")
    parsed = Parsed([Turn("system", system)] if system else [], images_of(row))
    items = list_of(row, "conversations")
    if items and "role" in items[0]:
        messages = message_turns(items)
        return Parsed(parsed.turns + messages.turns, parsed.media + messages.media)
    for number, item in enumerate(items, start=1):
        role = known_role(text_of(item, "from"), SHAREGPT_ROLES, number)
        parsed.turns.append(Turn(role, text_of(item, "value")))
    return parsed


@register_format("accessory", "conversations")
def read_accessory(row: Row, record_id: str) -> Parsed:
    """A record of LLaMA2-Accessory: values of dialogs may be numbers, inputs of blanks are none."""
    if "conversations" not in row:
        without = {name: value for name, value in row.items() if name != "input" or str(value).strip()}
        return detect_format(without, "the record").read(without, record_id)
    items = [{**item, "value": str(item.get("value", "")).strip()} for item in list_of(row, "conversations")]
    return read_conversations({**row, "conversations": items}, record_id)


@register_format("messages", "messages")
def read_messages(row: Row, record_id: str) -> Parsed:
    """``messages``: a list of ``{"role": ..., "content": ...}``, images inside them or beside."""
    parsed = message_turns(list_of(row, "messages"))
    return Parsed(parsed.turns, images_of(row) + parsed.media)


@register_format("alpaca", "instruction", "output")
def read_alpaca(row: Row, record_id: str) -> Parsed:
    """Instruction, optional input, output; optional ``system`` and ``history`` of question and answer."""
    system = optional_text(row, "system")
    turns = [Turn("system", system)] if system else []
    for pair in listed(row.get("history")):
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise RecordProblem(
                f"'history' holds {str(pair)[:40]!r}; it must hold pairs of question and answer"
            )
        question, answer = (sound_text(text, "history") for text in pair)
        turns += [Turn("user", question), Turn("assistant", answer)]
    instruction = text_of(row, "instruction")
    if not instruction.strip():
        raise RecordProblem(f"'instruction' is empty ({instruction!r}); it must have text")
    turns += [
        Turn("user", instruction, optional_text(row, "input")),
        Turn("assistant", text_of(row, "output")),
    ]
    return Parsed(turns, images_of(row))


@register_format("prompt_completion", "prompt", "completion")
def read_prompt_completion(row: Row, record_id: str) -> Parsed:
    """Prompt and completion, each a text or a list of messages."""
    if isinstance(row.get("prompt"), list):
        parsed = message_turns(list_of(row, "prompt") + list_of(row, "completion"))
        return Parsed(parsed.turns, images_of(row) + parsed.media)
    turns = [Turn("user", text_of(row, "prompt")), Turn("assistant", text_of(row, "completion"))]
    return Parsed(turns, images_of(row))


@register_format("captions", "caption", "url|image")
def read_caption(row: Row, record_id: str) -> Parsed:
    """A caption of an image; of several captions one is chosen by the record's place, so always the same."""
    caption = row.get("caption")
    if isinstance(caption, list) and caption:
        chosen = zlib.crc32(record_id.encode("utf-8", "replace")) % len(caption)
        caption = caption[chosen]
    text = text_of(row if "caption" not in row else {"caption": caption}, "caption")
    media = images_of(row) or listed(row.get("url"))
    return Parsed([Turn("user", CAPTION_INSTRUCTION), Turn("assistant", text)], media)


@register_format("karpathy", "sentences", "filename")
def read_karpathy(row: Row, record_id: str) -> Parsed:
    """A picture of ``dataset_coco.json`` with one of its sentences: the only one after ``each``."""
    said = row["sentences"]
    captions = [text_of(one, "raw") for one in (said if isinstance(said, list) else [said])]
    file = str(PurePosixPath(optional_text(row, "filepath"), text_of(row, "filename")))
    return read_caption({"caption": captions, "image": file}, record_id)


@register_format("scienceqa", "question", "choices", "answer")
def read_scienceqa(row: Row, record_id: str) -> Parsed:
    """A question of ScienceQA as CQM-A: context, question, options; the answer is a letter."""
    pid = str(row.get("pid", row.get("key", "")))
    try:
        problem = problem_of(pid, row, record_id)
    except UserError as error:
        raise RecordProblem(str(error)) from error
    turns = [
        Turn("user", build_prompt(problem, "CQM-A")),
        Turn("assistant", build_answer(problem, "CQM-A")),
    ]
    # the official folder has one folder per question, below one per split
    official = problem.image == "image.png" and pid and row.get("split")
    return Parsed(turns, [f"{row['split']}/{pid}/image.png"] if official else images_of(row))


@register_format("vqa", "question", "answers")
def read_vqa(row: Row, record_id: str) -> Parsed:
    """A question about a picture with people's answers: the one that most of them gave."""
    given = [
        answer.get("answer") if isinstance(answer, dict) else answer for answer in listed(row.get("answers"))
    ]
    if not given or not all(isinstance(answer, str) and answer.strip() for answer in given):
        raise RecordProblem(f"'answers' holds {str(row['answers'])[:40]!r}; it must hold texts")
    chosen = optional_text(row, "multiple_choice_answer") or str(Counter(given).most_common(1)[0][0])
    return Parsed([Turn("user", text_of(row, "question")), Turn("assistant", chosen)], images_of(row))


def read_record(form: Format, raw: RawRow, columns: dict[str, str]) -> Record:
    """Turn one row into the canonical record.

    Args:
        form: how the row is laid out.
        raw: the row as its container handed it on, without a problem.
        columns: other names for columns, ``expected: yours``.

    Returns:
        The record.

    Raises:
        RecordProblem: the row is not usable; the message says why.
    """
    row = rename(raw.row, columns)
    parsed = form.read(row, raw.record_id)
    return Record(raw.record_id, checked_turns(parsed.turns), media_paths(parsed))


def rename(row: Row, columns: dict[str, str]) -> Row:
    """Give the columns of a row the names a format expects.

    Args:
        row: as read.
        columns: ``expected: yours``.

    Returns:
        The row under the expected names; columns not mentioned keep theirs.
    """
    if not columns:
        return row
    named = {expected: row[yours] for expected, yours in columns.items() if yours in row}
    return {key: value for key, value in row.items() if key not in columns.values()} | named
