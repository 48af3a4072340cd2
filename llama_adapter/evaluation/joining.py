"""Which prediction belongs to which question: by what names both, and by order only where nothing does.

Looked at are ids, picture ids, file names of pictures, the question's own words, and pairs of these (ChartQA
asks several questions about a picture). Of the keys that every record on both sides has, and that name one
record each, the one that finds most questions counts. Where a shared key names several records, the order
counts if it has the keys in the same sequence on both sides. It does not know answers.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from llama_adapter.errors import UserError
from llama_adapter.evaluation.question import Question
from llama_adapter.evaluation.values import key_text, listed
from llama_adapter.media.names import COLUMNS, IDENTIFIERS, SUFFIXES

MAPPING_KEY = "key"
"""The field that holds a record's key in the mapping it comes from."""
ID_FIELDS = ("question_id", "questionId", "qid", "pid", MAPPING_KEY, "id")
"""Names of a question's id; the first one that a record has counts."""
IMAGE_ID_FIELDS = (*IDENTIFIERS, "cocoid")
"""Names of a picture's id."""
MEDIA_FIELDS = (*COLUMNS, "file_name", "filename")
"""Names of the file of a picture, sound, video or cloud; the first one that a record has counts."""
QUESTION_FIELDS = ("question", "query", "expression", "sent", "text", "caption")
"""Names of what is asked, or said of a picture; the first one that a record has counts."""

_MEDIA = frozenset(MEDIA_FIELDS)
LONGEST = 4096
"""Characters of a path."""

Keys = dict[str, str]
"""Kind of key -> its value, of one record."""

_NO_ID = re.compile(r"height\d+_width\d+|-1")
"""What stands in place of an id in LLaMA2-Accessory's files of RefCOCO and VSR."""
_KINDS = {"id": "id", "image_id": "picture id", "file": "file name", "stem": "file name"}
"""Kinds that a record may have of its own -> what a message calls them."""
_SAME = tuple((kind, kind) for kind in _KINDS)
_CROSSED = (
    *(("id", "image_id"), ("image_id", "id"), ("image_id", "row")),
    *(("id", "file"), ("id_stem", "stem"), ("image_id", "stem")),
)
"""Kinds of a prediction and of a question that may mean the same; they count if all questions are found."""
_PAIRS = (
    *_SAME,
    ("id", "row"),
    *_CROSSED,
    *((f"{kind}+question", f"{kind}+question") for kind in _KINDS),
    ("question", "question"),
)


@dataclass(frozen=True)
class Joined:
    """The outcome."""

    places: list[int | None]
    """For every question the number of its prediction; None where there is none."""
    notes: list[str]
    """What a reader of the table must know."""


def keys_of(record: Mapping[str, Any]) -> Keys:
    """What names a record.

    Args:
        record: of a question or a prediction.

    Raises:
        UserError: an id is no text or number.
    """
    found: Keys = {}
    for kind, names in (("id", ID_FIELDS), ("image_id", IMAGE_ID_FIELDS)):
        name = next((name for name in names if record.get(name) is not None), None)
        if name is not None:
            found[kind] = key_text(record[name], f"The field {name!r} of a record")
    named = () if _MEDIA.isdisjoint(record) else MEDIA_FIELDS
    file = next((record[name] for name in named if record.get(name)), None)
    file = file[0] if isinstance(file, list) and len(file) == 1 else file
    file = file.get("path") if isinstance(file, dict) else file
    if isinstance(file, str) and len(file) <= LONGEST:  # longer texts are pictures in base64
        found |= {"file": file, "stem": _stem(file)}
    if "id" in found:
        found["id_stem"] = _stem(found["id"])
    asked = next((record[name] for name in QUESTION_FIELDS if record.get(name) is not None), None)
    if isinstance(asked, str):
        said = " ".join(asked.split())
        found |= {"question": said} | {
            f"{kind}+question": f"{found[kind]}\n{said}" for kind in _KINDS & found.keys()
        }
    return found


def _stem(name: str) -> str:
    """A file's name without folder and suffix."""
    path = PurePath(name)
    return path.stem if path.suffix[1:].lower() in SUFFIXES else path.name


def question_ids(records: Sequence[Mapping[str, Any]], place: str) -> list[str]:
    """What questions are called: their ids, picture ids or files if each names one; else row numbers.

    Args:
        records: of the questions.
        place: for the message.

    Raises:
        UserError: only some have an id, or an id comes twice and the questions do not differ in words.
    """
    keys = [keys_of(record) for record in records]
    for kind in _KINDS:
        values = _values(keys, kind)
        if values is not None and len(set(values)) == len(values):
            return values
        differ = _unique(keys, f"{kind}+question") is not None
        if kind in ("id", "image_id") and not differ and (repeated := _repeated(keys, kind)):
            raise _repeats(repeated, place)
        if kind == "id" and differ:
            break
    return [str(number) for number in range(len(records))]


def join(
    questions: Sequence[Question], records: Sequence[Mapping[str, Any]], place: str, limited: bool = False
) -> Joined:
    """Finds the prediction of every question.

    Args:
        questions: what is asked.
        records: the predictions.
        place: their file, for messages.
        limited: whether these are only the first of the questions.

    Raises:
        UserError: questions and predictions have keys that do not match, or other numbers where the order
            is all there is.
    """
    given = [keys_of(record) for record in records]
    asked = [keys_of(question.record) | {"row": question.id} for question in questions]
    best, most = None, 0
    for pair in _PAIRS:
        found = _matches(given, asked, pair)
        if found > most:
            best, most = pair, found
    if best is None:
        return _by_order(given, asked, place, limited)
    numbers = {keys[best[0]]: number for number, keys in enumerate(given)}
    places = [numbers.get(keys[best[1]]) for keys in asked]
    _check_pictures(given, asked, places, place)
    by = _said(best[0])
    return Joined(places, [] if by in ("id", "picture id") else [f"Predictions were joined by {by}."])


def _said(kind: str) -> str:
    """A kind of key in words."""
    first, _, more = kind.partition("+")
    return {**_KINDS, "id_stem": "file name"}.get(first, first) + (" and question" if more else "")


def _values(keys: Sequence[Keys], kind: str) -> list[str] | None:
    """The keys of one kind; None where not every record has one."""
    return [each[kind] for each in keys] if all(kind in each for each in keys) else None


def _unique(keys: Sequence[Keys], kind: str) -> list[str] | None:
    """The keys of one kind; None where some record has none, or two share one."""
    values = _values(keys, kind)
    return values if values is not None and len(set(values)) == len(values) else None


def _matches(given: Sequence[Keys], asked: Sequence[Keys], pair: tuple[str, str]) -> int:
    """How many questions a pair of kinds finds; 0 where it may not be used."""
    predictions, questions = _unique(given, pair[0]), _unique(asked, pair[1])
    if predictions is None or questions is None:
        return 0
    known = set(predictions)
    found = sum(key in known for key in questions)
    if pair in _CROSSED and found < len(questions):
        return 0
    counted = pair[1] == "row" and all(key.isdigit() for key in questions)
    return 0 if counted and questions[0] not in known else found  # row numbers from 1 name other rows


def _repeated(keys: Sequence[Keys], kind: str) -> list[str]:
    """Keys that come more than once, or are missing where others have one; none if no record has a key."""
    counted = Counter(each.get(kind, "") for each in keys)
    if all(not name or _NO_ID.fullmatch(name) for name in counted):
        return []
    return [name for name, count in counted.items() if count > 1 or not name]


def _repeats(repeated: Sequence[str], place: str) -> UserError:
    """What to say of keys that name no record."""
    return UserError(
        f"{place}: the ids {listed(repeated)} are empty or come more than once. "
        "Use every id once, or no ids at all: then the order of the records counts."
    )


def _by_order(given: Sequence[Keys], asked: Sequence[Keys], place: str, limited: bool) -> Joined:
    """Joins records that share no usable key.

    Raises:
        UserError: they have keys that do not match, or their numbers differ.
    """
    shared = [kind for kind in _KINDS if _values(given, kind) and _values(asked, kind)]
    agreed = next(
        (kind for kind in shared if _values(given[: len(asked)], kind) == _values(asked, kind)), None
    )
    if agreed is None:
        _refuse_keys(given, asked, shared, place)
    if len(given) != len(asked) and not (limited and len(given) > len(asked)):
        raise UserError(
            f"{place}: holds {len(given)} predictions for {len(asked)} questions, and nothing but "
            "their order tells which belongs to which. Add the ids of the questions, or what is missing."
        )
    why = (
        "nothing names the question of a prediction"
        if agreed is None
        else (f"a {_said(agreed)} names several, in the same sequence on both sides")
    )
    return Joined(list(range(len(asked))), [f"Predictions were joined by order: {why}."])


def _refuse_keys(given: Sequence[Keys], asked: Sequence[Keys], shared: Sequence[str], place: str) -> None:
    """Refuses to go by order where predictions have keys that should have matched.

    Raises:
        UserError: says which.
    """
    for kind in ("id", "image_id"):
        if not all(_NO_ID.fullmatch(each.get(kind, "-1")) for each in given) and (
            repeated := _repeated(given, kind)
        ):
            raise _repeats(repeated, place)
    kind = next(iter(shared), "id")
    came = [each[kind] for each in given if kind in each]
    if not came or (not shared and all(map(_NO_ID.fullmatch, came))):
        return
    wanted = [each.get(kind, each["row"]) for each in asked]
    if len(set(came)) < len(came) or len(set(wanted)) < len(wanted):
        raise UserError(
            f"{place}: a {_said(kind)} names several records here, in another sequence than the questions. "
            f"Add `question`, or ids of the questions: {listed(came)} came, {listed(wanted)} are asked."
        )
    raise UserError(
        f"No prediction has the {_said(kind)} of a question: {listed(came)} came, "
        f"{listed(wanted)} are asked. Use the ids of the questions."
    )


def _check_pictures(
    given: Sequence[Keys], asked: Sequence[Keys], places: Sequence[int | None], place: str
) -> None:
    """Refuses predictions about other pictures than their questions: ids that count the rows of two orders.

    Raises:
        UserError: names the first one.
    """
    for question, number in zip(asked, places, strict=True):
        said, wanted = "" if number is None else given[number].get("stem", ""), question.get("stem", "")
        if said and wanted and said != wanted:
            raise UserError(
                f"{place}: the prediction for question {question['row']!r} is about the picture {said!r}, "
                f"the question about {wanted!r}. Use the ids of the questions, or leave out other ids."
            )
