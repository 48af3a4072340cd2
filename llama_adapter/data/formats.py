"""Record formats: small functions that turn one row into turns, registered with the columns they need.

A reader sees one row as a dict and knows nothing of files. It raises ``RecordProblem`` with the reason; it
never guesses. What all records may have besides (a system text, a history, functions, media) is read in
``reading``. A new format is one function and one ``register_format`` line; the order of registration is the
order of detection.
"""

import difflib
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from llama_adapter.data.fields import Parsed, Row, filled, list_of, listed, optional_text, text_of
from llama_adapter.data.keys import INSTEAD, preference_key
from llama_adapter.data.messages import SHAREGPT, message_turns
from llama_adapter.data.records import RecordProblem, Turn, brief
from llama_adapter.errors import UserError
from llama_adapter.media import MediaItem, names_media
from llama_adapter.scienceqa import build_answer, build_prompt, problem_of

RowReader = Callable[[Row, str], Parsed]
"""Takes a row and its ``record_id``; returns turns, and media that only this format names."""

MEDIA = "media"
"""In the columns of a format: any column that may name media."""
CAPTION_INSTRUCTION = "Generate caption of this image"
"""The fixed instruction of the published captioning recipe."""


@dataclass(frozen=True)
class Format:
    """One known layout of a record."""

    name: str
    """What ``SourceConfig.format`` calls it."""
    needs: tuple[str, ...]
    """Columns that even a question has; ``a|b`` means one of the two."""
    read: RowReader
    """Turns one row into a conversation."""
    answer: tuple[str, ...] = ()
    """Columns that a record to learn from has besides."""
    also: tuple[str, ...] = ()
    """Columns that are read where they are there, or say nothing that matters."""

    @property
    def keys(self) -> set[str]:
        """The columns that are accounted for."""
        return {key for need in (*self.needs, *self.answer) for key in need.split("|")} | set(self.also)

    def matches(self, columns: Collection[str], answered: bool = True) -> bool:
        """Whether a record with these columns looks like this format.

        Args:
            columns: its own.
            answered: whether the answer must be there, too.
        """
        needs = (*self.needs, *self.answer) if answered else self.needs
        return all(any(_is_there(key, columns) for key in need.split("|")) for need in needs)


def _is_there(key: str, columns: Collection[str]) -> bool:
    """Whether a column, or one of a kind, is among those found."""
    return any(map(names_media, columns)) if key == MEDIA else key in columns


FORMATS: dict[str, Format] = {}
"""Name -> format, in the order of detection."""


def register_format(
    name: str, *needs: str, answer: Collection[str] = (), also: Collection[str] = ()
) -> Callable[[RowReader], RowReader]:
    """Make a record format known; use as a decorator on its reader.

    Args:
        name: what ``SourceConfig.format`` calls it.
        *needs: the columns it is detected by; ``a|b`` means one of the two.
        answer: of the columns it is detected by those that a question alone does not have; the reader then
            says in ``Parsed.lacks`` that one is missing.
        also: further columns that it reads, or knows to say nothing that matters. All others are reported as
            not read.

    Returns:
        The decorator, which leaves the reader as it is.
    """

    def keep(read: RowReader) -> RowReader:
        FORMATS[name] = Format(name, needs, read, tuple(answer), tuple(also))
        return read

    return keep


def known_formats() -> str:
    """The formats with their columns, for messages."""
    return "; ".join(f"{form.name} ({', '.join(form.needs + form.answer)})" for form in FORMATS.values())


def find_format(columns: Collection[str], answered: bool) -> Format | None:
    """The first registered format that a record with these columns may have.

    Args:
        columns: its own.
        answered: whether the answer must be there, too.
    """
    return next((form for form in FORMATS.values() if form.matches(columns, answered)), None)


def detect_format(columns: Iterable[str], place: str) -> Format:
    """Find the format a file is written in by its columns.

    Args:
        columns: the names found.
        place: the file, for the message.

    Returns:
        The first registered format whose columns are all there.

    Raises:
        UserError: no format matches, or the columns are those of preference data.
    """
    found = set(columns)
    if form := find_format(found, answered=True):
        return form
    if key := preference_key(dict.fromkeys(found, ["?"])):
        raise UserError(f"{place} has the column {key!r}, which is of preference data. Instead: {INSTEAD}.")
    known = f"known formats: {known_formats()}"
    if (form := find_format(found, answered=False)) and found & form.keys == found:
        raise UserError(
            f"{place} has questions of the format {form.name}, but no answers to learn: "
            f"{', '.join(form.answer)} is missing (found: {', '.join(sorted(found))}). Add it, or set "
            f"columns to say where it is; {known}."
        )
    raise UserError(
        f"{place} has the columns {', '.join(sorted(found))}, which is no known format. Set columns to say "
        f"which is which, for example {{instruction: question, output: answer}}; {known}."
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


def answered(turns: list[Turn], row: Row, key: str) -> Parsed:
    """Turns with the answer behind them, if the row has one.

    Args:
        turns: what leads to it.
        row: the record.
        key: the column of the answer.

    Raises:
        RecordProblem: the answer is no text.
    """
    if row.get(key) is None:
        found = ", ".join(map(repr, row)) or "none"
        state = "is missing" if key not in row else "is empty (null)"
        return Parsed(
            turns, lacks=f"the key {key!r} {state}; it must be there to learn from (found: {found})"
        )
    return Parsed([*turns, Turn("assistant", text_of(row, key))])


@register_format("sharegpt", "conversations")
@register_format("llava", "conversations", MEDIA)  # the lower decorator registers first
def read_conversations(row: Row, record_id: str) -> Parsed:
    """``conversations``: a list of ``{"from": ..., "value": ...}``, or of ``role`` and ``content``."""
    items = list_of(row, "conversations")
    if items and "role" in items[0]:
        return message_turns(items, place="conversations")
    return message_turns(items, SHAREGPT, "conversations")


@register_format("accessory", "conversations")
def read_accessory(row: Row, record_id: str) -> Parsed:
    """A record of LLaMA2-Accessory: values of dialogs may be numbers, inputs of blanks are none."""
    if "conversations" not in row:
        without = {name: value for name, value in row.items() if name != "input" or str(value).strip()}
        form = find_format(filled(without), answered=False)
        if form is None:
            raise RecordProblem(
                f"its keys ({', '.join(row) or 'none'}) are of no known format; {known_formats()}"
            )
        parsed = form.read(without, record_id)
        parsed.read |= form.keys | {"input"}
        return parsed
    items = [{**item, "value": str(item.get("value", "")).strip()} for item in list_of(row, "conversations")]
    return read_conversations({**row, "conversations": items}, record_id)


@register_format("messages", "messages", also=("prompt",))  # some data repeat the first question there
def read_messages(row: Row, record_id: str) -> Parsed:
    """``messages``: a list of ``{"role": ..., "content": ...}``, media inside them or beside."""
    return message_turns(list_of(row, "messages"))


@register_format("alpaca", "instruction", answer=("output",), also=("input",))
def read_alpaca(row: Row, record_id: str) -> Parsed:
    """Instruction, optional input, output."""
    instruction = text_of(row, "instruction")
    if not instruction.strip():
        raise RecordProblem(f"'instruction' is empty ({instruction!r}); it must have text")
    return answered([Turn("user", instruction, optional_text(row, "input"))], row, "output")


@register_format("prompt_completion", "prompt", answer=("completion",))
def read_prompt_completion(row: Row, record_id: str) -> Parsed:
    """Prompt and completion, each a text or a list of messages."""
    if not isinstance(row.get("prompt"), list):
        return answered([Turn("user", text_of(row, "prompt"))], row, "completion")
    asked = message_turns(list_of(row, "prompt"), place="prompt")
    if not isinstance(row.get("completion"), list):
        whole = answered(asked.turns, row, "completion")
        return Parsed(whole.turns, asked.media, unread=asked.unread, lacks=whole.lacks)
    said = message_turns(list_of(row, "completion"), place="completion")
    return Parsed(asked.turns + said.turns, asked.media + said.media, unread=asked.unread + said.unread)


@register_format("captions", f"url|{MEDIA}", "caption")
def read_caption(row: Row, record_id: str) -> Parsed:
    """A caption of an image; of several captions one is chosen by the record's place, so always the same."""
    caption = row.get("caption")
    if isinstance(caption, list) and caption:
        chosen = zlib.crc32(record_id.encode("utf-8", "replace")) % len(caption)
        caption = caption[chosen]
    text = text_of(row if "caption" not in row else {"caption": caption}, "caption")
    named = any(names_media(key) for key in filled(row))
    media = [] if named else [MediaItem("image", text_of(row, "url"))]
    return Parsed([Turn("user", CAPTION_INSTRUCTION), Turn("assistant", text)], media)


@register_format(
    "karpathy", "sentences", "filename", also=("filepath", "sentids", "imgid", "cocoid", "image_id")
)
def read_karpathy(row: Row, record_id: str) -> Parsed:
    """A picture of ``dataset_coco.json`` with one of its sentences: the only one after ``each``."""
    said = row.get("sentences")
    each = list_of({"sentences": said if isinstance(said, list) else [said]}, "sentences")
    captions = [text_of(one, "raw") for one in each]
    file = str(PurePosixPath(optional_text(row, "filepath"), text_of(row, "filename")))
    parsed = read_caption({"caption": captions, "url": file}, record_id)
    parsed.read |= {"filename", "filepath"}
    return parsed


@register_format(
    "scienceqa",
    "question",
    "choices",
    answer=("answer",),
    also=(
        "pid",
        "key",
        "hint",
        "task",
        "grade",
        "subject",
        "topic",
        "category",
        "skill",
        "lecture",
        "solution",
    ),
)
def read_scienceqa(row: Row, record_id: str) -> Parsed:
    """A question of ScienceQA as CQM-A: context, question, options; the answer is a letter."""
    pid = str(row.get("pid", row.get("key", "")))
    known = row.get("answer") is not None
    problem = problem_of(pid, row if known else {**row, "answer": 0}, record_id)
    asked = [Turn("user", build_prompt(problem, "CQM-A"))]
    said = build_answer(problem, "CQM-A") if known else None
    parsed = answered(asked, {"answer": said} if known else row, "answer")
    if problem.image == "image.png" and pid and row.get("split"):
        # the official folder has one folder per question, below one per split
        parsed.media = [MediaItem("image", f"{row['split']}/{pid}/image.png")]
        parsed.read = {"image"}
    return parsed


@register_format(
    "vqa",
    "question",
    answer=("answers",),
    also=("multiple_choice_answer", "answer_type", "question_type", "answer_confidence"),
)
def read_vqa(row: Row, record_id: str) -> Parsed:
    """A question about a picture with people's answers: the one that most of them gave."""
    asked = [Turn("user", text_of(row, "question"))]
    if row.get("answers") is None and not optional_text(row, "multiple_choice_answer"):
        return answered(asked, row, "answers")
    given = [
        answer.get("answer") if isinstance(answer, dict) else answer for answer in listed(row.get("answers"))
    ]
    said = optional_text(row, "multiple_choice_answer")
    if not said and (not given or not all(isinstance(answer, str) and answer.strip() for answer in given)):
        raise RecordProblem(f"'answers' holds {brief(row['answers'])!r}; it must hold texts")
    chosen = said or str(Counter(given).most_common(1)[0][0])
    return answered(asked, {"answers": chosen}, "answers")
