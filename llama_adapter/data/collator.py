"""Pads rows of different lengths to one batch, on the right, with nothing else decided here."""

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
            "record_id": [row["record_id"] for row in rows],
        }
        if "media" in rows[0]:
            batch["media"] = [row["media"] for row in rows]
        return batch
