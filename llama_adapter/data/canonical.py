"""Records as rows of their table: plain columns that every file and every format fills alike.

Training shows models images: a record that names other media is a problem, unless the run leaves media out.
What a record carries as bytes becomes a file here. Tokens are not known.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets

from llama_adapter.data.formats import Format
from llama_adapter.data.reading import Habits, read_record, without_marks
from llama_adapter.data.records import RawRow, Record, RecordProblem, stored_json, stored_turn
from llama_adapter.errors import UserError
from llama_adapter.media import as_file

KEPT_MEDIA = Path(datasets.config.HF_DATASETS_CACHE, "media_of_records")
"""Where media are written that records carry as bytes: beside the tables of ``datasets``."""


def canonical_row(form: Format, raw: RawRow, plan: Mapping[str, Any]) -> dict[str, Any]:
    """One row of the table of records, but for its type.

    Args:
        form: how the row is laid out.
        raw: the row as its container handed it on.
        plan: of ``sources.source_plans``.

    Returns:
        The row; a record that cannot be used has a ``problem`` and no turns.
    """
    habits = Habits(
        tuple(plan["columns"].items()), plan.get("media_name"), plan["marks"], tuple(plan.get("ignore", ()))
    )
    folder, text_alone = plan.get("media_folder"), plan["text_alone"]
    record, problem = Record(raw.record_id, []), raw.problem
    try:
        record = record if problem else images_alone(read_record(form, raw, habits), text_alone)
        media = media_files(record, folder or "")
    except (RecordProblem, UserError) as error:
        record, problem, media = Record(raw.record_id, []), str(error).removesuffix("."), []
    return {
        "record_id": raw.record_id,
        "turns": [stored_turn(turn) for turn in record.turns],
        "media": media,
        "tools": stored_json(record.tools),
        "unread": list(map(printable, record.unread)),
        "problem": printable(problem),
        "characters": sum(len(turn.text) + len(turn.context) for turn in record.turns),
    }


def images_alone(record: Record, text_alone: bool) -> Record:
    """The record as training can show it to a model: with images, and nothing else.

    Args:
        record: as read.
        text_alone: whether media are left out of the run, marks and all.

    Raises:
        RecordProblem: it names other media.
    """
    others = [item for item in record.media if item.modality != "image"]
    if not others:
        return record
    if not text_alone:
        raise RecordProblem(
            f"it comes with {', '.join(map(str, others))}, but training shows models images only; set "
            "data.media to ignore to train on its text alone"
        )
    images = [item for item in record.media if item.modality == "image"]
    turns = [without_marks(turn, {item.modality for item in others}) for turn in record.turns]
    return replace(record, turns=turns, media=images)


def media_files(record: Record, folder: str | Path) -> list[str]:
    """Files of a record's images; what it carries as bytes is written beside the tables of ``datasets``.

    Args:
        record: with media.
        folder: where relative paths start.

    Raises:
        RecordProblem: a path is no text that a file can be called by.
    """
    return [as_file(item, Path(folder), KEPT_MEDIA) for item in record.media if item.modality == "image"]


def printable(text: str) -> str:
    """The text with everything escaped that UTF-8 cannot hold, so that it can be stored and shown."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
