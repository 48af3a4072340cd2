"""Attaches media to a batch, as precomputed features or as pixels: collators around a collator.

The seam between a feature cache and a multimodal model: the model takes ``features`` where it would take
pixels. Records with and without media share a batch; a mask says which tokens are there. Nothing is known of
how features or pixels were made.

Dimensions: B records, N feature tokens of the longest item, W width; I images, S height, T width in pixels.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from llama_adapter.errors import UserError


class FeatureCollator:
    """Adds ``features`` (B, N, W) and ``feature_mask`` (B, N) to what another collator makes.

    Args:
        collate: makes the batch of the rows without features.
        features: by the names that rows have in ``column``; such as a ``FeatureTable``.
        column: the row's list of names; a row without one has no features.
    """

    def __init__(
        self,
        collate: Callable[[Sequence[dict[str, Any]]], dict[str, Any]],
        features: Mapping[str, Tensor],
        column: str = "media",
    ) -> None:
        self.collate, self.features, self.column = collate, features, column

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Build one batch.

        Args:
            rows: records, each with at most one name in ``column``.

        Returns:
            The inner collator's batch without ``column``; where a row has media ``features``, 0 where there
            are none, and ``feature_mask``, True where there are.

        Raises:
            UserError: a row names several media, or one without features; or widths differ.
        """
        batch = self.collate(rows)
        batch.pop(self.column, None)
        found = [self._features(row) for row in rows]
        given = [one for one in found if one is not None]
        if not given:
            return batch
        widths = sorted({one.shape[1] for one in given})
        if len(widths) > 1:
            raise UserError(f"Features of one batch have the widths {widths}. Use one encoder for all items.")
        longest = max(one.shape[0] for one in given)
        features = torch.zeros(len(rows), longest, widths[0], dtype=given[0].dtype)
        mask = torch.zeros(len(rows), longest, dtype=torch.bool)
        for place, one in enumerate(found):
            if one is not None:
                features[place, : len(one)] = one
                mask[place, : len(one)] = True
        return {**batch, "features": features, "feature_mask": mask}

    def _features(self, row: dict[str, Any]) -> Tensor | None:
        """Features (N, W) of one row; None without media."""
        name = only_medium(row, self.column)
        if name is not None and name not in self.features:
            raise UserError(
                f"{row.get('record_id', 'a record')} names {name!r}, which has no features. "
                "Use FeatureCache.table with the media of all records first."
            )
        return None if name is None else self.features[name]


class PixelCollator:
    """Adds ``pixel_values`` (I, 3, S, T) and ``has_image`` (B,) to what another collator makes.

    Args:
        collate: makes the batch of the rows without images.
        read: from paths to pixels, such as ``VisionEncoder.pixels``.
        column: the row's list of paths; a row without one has no image.
    """

    def __init__(
        self,
        collate: Callable[[Sequence[dict[str, Any]]], dict[str, Any]],
        read: Callable[[Sequence[str]], Tensor],
        column: str = "media",
    ) -> None:
        self.collate, self.read, self.column = collate, read, column

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Build one batch.

        Args:
            rows: records, each with at most one path in ``column``.

        Returns:
            The inner collator's batch without ``column``; where a row has an image also ``pixel_values``, of
            those that have one, and ``has_image``.

        Raises:
            UserError: a row names several images, or one that cannot be read.
        """
        batch = self.collate(rows)
        batch.pop(self.column, None)
        paths = [only_medium(row, self.column) for row in rows]
        given = [path for path in paths if path is not None]
        if not given:
            return batch
        has_image = torch.tensor([path is not None for path in paths])
        return {**batch, "pixel_values": self.read(given), "has_image": has_image}


def only_medium(row: Mapping[str, Any], column: str = "media") -> str | None:
    """What a row names in its list of media; None where that is empty.

    Raises:
        UserError: it names several.
    """
    names = row.get(column) or []
    if len(names) > 1:
        place = row.get("record_id", "a record")
        raise UserError(f"{place} names {len(names)} media: {list(names)}. Use one per record.")
    return names[0] if names else None
