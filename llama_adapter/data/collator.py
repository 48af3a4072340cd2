"""Rows of different lengths to one batch: padded on the right, or one after the other in a single sequence.

A packed batch has no attention mask: positions that start again at 0 tell transformers where a record ends
(``masking_utils.find_packed_sequence_indices``, and the varlen kernels of flash attention likewise). Which
rows belong together is decided elsewhere.

Dimension letters: B rows of the batch, T tokens of a row.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from llama_adapter.data.encoding import IGNORE
from llama_adapter.errors import UserError


def padded(sequences: Sequence[Sequence[int]], value: int) -> Int[Tensor, "B T"]:
    """Make a rectangle of sequences.

    Args:
        sequences: B sequences, the longest of T tokens.
        value: what fills the right of shorter ones.

    Returns:
        The batch.
    """
    width = max(len(sequence) for sequence in sequences)
    return torch.tensor(
        [[*sequence, *[value] * (width - len(sequence))] for sequence in sequences], dtype=torch.long
    )


class PaddingCollator:
    """Collates rows of ``build_datasets``: padded on the right, labels with -100, attention 0 on padding.

    Args:
        pad_token_id: what fills ``input_ids``; its value is without effect, because padding is masked and has
            no loss.
    """

    def __init__(self, pad_token_id: int) -> None:
        self.pad_token_id = pad_token_id

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Build one batch.

        Args:
            rows: rows with ``input_ids``, ``labels`` and ``record_id``, and ``media`` where they were kept.

        Returns:
            ``input_ids``, ``attention_mask`` and ``labels`` of shape (B, T), and the list columns as they
            are.

        Raises:
            UserError: there is no row to build a batch from.
        """
        if not rows:
            raise UserError(f"the batch is {list(rows)}, so it has no shape. Use a batch size of at least 1.")
        ids = [row["input_ids"] for row in rows]
        batch: dict[str, Any] = {
            "input_ids": padded(ids, self.pad_token_id),
            "attention_mask": padded([[1] * len(row) for row in ids], 0),
            "labels": padded([row["labels"] for row in rows], IGNORE),
        }
        return batch | _list_columns(rows)


class PackingCollator:
    """Collates rows of ``build_datasets`` into one sequence without padding.

    No token of a record predicts the first token of the next: every first label is -100.
    """

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Build one batch.

        Args:
            rows: as for :class:`PaddingCollator`.

        Returns:
            ``input_ids``, ``position_ids``, ``labels`` and ``record_index`` of shape (1, T), and the list
            columns as they are: ``record_index`` says for each token which entry of them it belongs to.

        Raises:
            UserError: there is no row to build a batch from.
        """
        if not rows:
            raise UserError(f"the pack is {list(rows)}, so it has no shape. Use packs of at least one row.")
        columns: dict[str, list[int]] = {
            "input_ids": [token for row in rows for token in row["input_ids"]],
            "position_ids": [position for row in rows for position in range(len(row["input_ids"]))],
            "labels": [label for row in rows for label in (IGNORE, *row["labels"][1:])],
            "record_index": [index for index, row in enumerate(rows) for _ in row["input_ids"]],
        }
        return {name: torch.tensor([values]) for name, values in columns.items()} | _list_columns(rows)


def _list_columns(rows: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """The columns that stay lists, with one entry per record."""
    return {name: [row[name] for row in rows] for name in ("record_id", "media") if name in rows[0]}
