"""Which keys of a record are read, which say nothing about its meaning, and which may not be passed over.

Whatever is left is counted and named, so that nothing a record says gets lost unseen. Formats declare what
they read; the sets here hold for all of them.
"""

from collections.abc import Collection
from typing import Any

from llama_adapter.data.records import RecordProblem, brief

HARMLESS = frozenset(
    {"id", "_id", "idx", "index", "uid", "uuid", "question_id", "conversation_id", "prompt_id", "record_id"}
    | {"hash", "source", "dataset", "dataset_name", "origin", "metadata", "meta", "split", "license"}
    | {"language", "lang", "created", "created_at", "timestamp", "date", "version"}
)
"""Keys that say where a record is from and how it is called: neither read nor counted."""

PREFERENCE_WORDS = frozenset({"chosen", "rejected", "preferred", "dispreferred", "kto", "ranked", "ranking"})
"""Words, between underscores, in the names of columns of preference data."""
PREFERENCE = frozenset(
    {"preference", "preferences", "overall_preference", "winner", "loser", "winner_model", "winner_model_a"}
    | {
        "winner_model_b",
        "winner_tie",
        "better_response_id",
        "safer_response_id",
        "human_ref_A",
        "human_ref_B",
    }
    | {
        "score_A",
        "score_B",
        "response_a",
        "response_b",
        "response_A",
        "response_B",
        "response_0",
        "response_1",
    }
    | {"response_2", "response_j", "response_k", "answer_a", "answer_b", "output_1", "output_2"}
    | {"conversation_a", "conversation_b", "desirable", "is_desirable"}
)
"""Columns of preference data that have other names."""
RANKED = frozenset({"rank", "ranks", "rankings", "responses", "completions", "candidates"})
"""Columns that hold several answers, or their order, where they are lists."""

MEANINGFUL = {
    "history": "pairs of question and answer before this one",
    "system": "a system text",
    "system_prompt": "a system text",
    "developer": "a system text",
    "tools": "functions",
    "functions": "functions",
    "tool_calls": "calls of functions",
    "function_call": "calls of functions",
    "documents": "what the answer is to be found in",
    "context": "what the answer is to be found in",
    "input": "what the instruction works on",
    "reasoning_content": "thoughts",
    "reasoning": "thoughts",
    "thinking": "thoughts",
    "weight": "how much the record counts",
    "loss": "whether the record is learned",
    "loss_weight": "how much the record counts",
    "train": "whether the record is learned",
    "mask": "what is not learned",
    "train_detail": "which parts are learned",
}
"""Keys that change what a record means where no format reads them, and what they hold."""

INSTEAD = (
    "preferences are not learned here; use TRL's DPOTrainer, KTOTrainer or RewardTrainer with this adapter, "
    "or write the better answer as the record's only one"
)
"""What to do with preference data."""


def preference_key(row: dict[str, Any], read: Collection[str] = ()) -> str | None:
    """The key by which a record is one of preference data; None where it is not.

    A ``label`` is one where it is true or false, as KTO's; classes have other labels.

    Args:
        row: the record.
        read: keys that its format reads.
    """
    for key, value in row.items():
        if key in read or value is None or value in ("", [], {}):
            continue
        words = set(key.lower().split("_"))
        ranked = key in RANKED and isinstance(value, list | dict)
        if words & PREFERENCE_WORDS or key in PREFERENCE or ranked:
            return key
        if key in ("label", "labels") and str(value).lower() in ("true", "false", "0", "1"):
            return key
    return None


def refuse_preferences(row: dict[str, Any], read: Collection[str] = ()) -> None:
    """Refuse a record of preference data.

    Args:
        row: the record.
        read: keys that its format reads.

    Raises:
        RecordProblem: it is one.
    """
    if key := preference_key(row, read):
        raise RecordProblem(f"the key {key!r} is of preference data ({brief(row[key])!r}); {INSTEAD}")


def unread_keys(held: Collection[str], read: Collection[str]) -> list[str]:
    """The keys that hold something and that nobody reads.

    Args:
        held: keys of the record that hold something.
        read: those that were read.

    Raises:
        RecordProblem: one of them would change what the record means.
    """
    left = sorted(set(held) - set(read) - HARMLESS)
    for key in left:
        if key in MEANINGFUL:
            raise RecordProblem(
                f"the key {key!r} holds {MEANINGFUL[key]}, which its format does not read; rename it with "
                "columns, or name it under ignore to do without it"
            )
    return left
