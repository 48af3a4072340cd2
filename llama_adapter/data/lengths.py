"""Tokens of the rows of a data set, and whether they have media, read off the table without Python lists.

It does not know what lengths are used for.

Dimension letters: N rows.
"""

from typing import Any, TypeAlias

import datasets
import numpy as np
import pyarrow.compute as arrow
from jaxtyping import Bool, Int

from llama_adapter.errors import UserError

Lengths: TypeAlias = Int[np.ndarray, " N"]
"""Tokens of each row."""

MEDIA_TOKENS = "media_tokens"
"""The column of what a collator adds to a row."""


def rows_with_media(rows: Any) -> Bool[np.ndarray, " N"]:
    """Which rows of a data set have media.

    Args:
        rows: as for ``row_lengths``; rows without the column have none.
    """
    if isinstance(rows, datasets.Dataset):
        if "media" not in rows.column_names:
            return np.zeros(len(rows), dtype=bool)
        table = rows.select_columns(["media"]).with_format("arrow")
        parts = [arrow.list_value_length(part["media"]).to_numpy() for part in table.iter(batch_size=10_000)]
        return np.concatenate(parts) > 0 if parts else np.zeros(0, dtype=bool)
    return np.array([bool(rows[at].get("media")) for at in range(len(rows))], dtype=bool)


def media_tokens(rows: datasets.Dataset) -> Lengths:
    """What a collator adds to each row: the column ``media_tokens``, or nothing without it."""
    if MEDIA_TOKENS not in rows.column_names:
        return np.zeros(len(rows), dtype=np.int64)
    found = rows.select_columns([MEDIA_TOKENS]).with_format("numpy")[:][MEDIA_TOKENS]
    return np.asarray(found, dtype=np.int64)


def row_types(rows: Any) -> Int[np.ndarray, " N"]:
    """What every row counts as, numbered by name.

    Args:
        rows: as ``build_datasets`` makes them.

    Raises:
        UserError: the rows have no types.
    """
    if not isinstance(rows, datasets.Dataset) or "type" not in rows.column_names:
        raise UserError(
            f"training.types keeps types apart, but the {len(rows)} rows have none. Give sources under "
            "data.train a type or a task, or set types=mixed."
        )
    return np.unique(rows.select_columns(["type"]).with_format("numpy")[:]["type"], return_inverse=True)[1]


def row_characters(rows: datasets.Dataset) -> Int[np.ndarray, " N"]:
    """Characters of every row's record.

    Args:
        rows: as ``build_datasets`` makes them where sources have types.
    """
    return np.asarray(
        rows.select_columns(["characters"]).with_format("numpy")[:]["characters"], dtype=np.int64
    )


def row_lengths(rows: Any) -> Lengths:
    """Tokens of every row of a data set.

    Args:
        rows: a ``datasets.Dataset``, whose table is read without making Python lists, or any sized sequence
            of rows with ``input_ids``. A column ``media_tokens`` is what a collator adds to each.

    Raises:
        UserError: the rows have no ``input_ids``.
    """
    if isinstance(rows, datasets.Dataset):
        if "input_ids" not in rows.column_names:
            raise UserError(
                f"The rows have the columns {rows.column_names}, so their lengths are unknown. "
                "Use rows with input_ids, as build_datasets makes them."
            )
        table = rows.select_columns(["input_ids"]).with_format("arrow")
        parts = [
            arrow.list_value_length(part["input_ids"]).to_numpy() for part in table.iter(batch_size=10_000)
        ]
        lengths = np.concatenate(parts).astype(np.int64) if parts else np.zeros(0, dtype=np.int64)
        return lengths + media_tokens(rows)
    each = (rows[at] for at in range(len(rows)))
    return np.array([len(row["input_ids"]) + row.get(MEDIA_TOKENS, 0) for row in each], dtype=np.int64)
