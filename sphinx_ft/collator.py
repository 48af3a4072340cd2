"""Puts images into batches of text rows: their tokens' places, and what the model is shown of them.

A collator around the core's. A row's images are the files in its list of media. Labels keep their tokens;
image tokens have none. So a loss over labelled positions has the released alignment: the last image token
predicts the first token of the text.

Dimensions: I images of the batch, V views, S side of the padded square in pixels.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from jaxtyping import Bool
from torch import Tensor

from sphinx_ft.config import SphinxConfig
from sphinx_ft.feature_cache import CachedFeatures
from sphinx_ft.pictures import load_squares
from sphinx_ft.placement import PlacementRule, place_images, place_labels
from sphinx_ft.views import useful_mask

Shown: TypeAlias = tuple[dict[str, Any], Bool[Tensor, "I V"]]
"""What the model takes of images, and which of their views are useful."""


class SphinxCollator:
    """Adds ``pixel_values`` (I, 3, S, S) or ``features``, and ``useful_views`` (I, V), to another's batches.

    Args:
        collate: makes a batch of rows that have their image tokens.
        config: of the model.
        bos_token_id: the token that begins texts, if one does.
        column: the row's list of image files.
        features: of all images, in place of their pixels.
    """

    def __init__(
        self,
        collate: Callable[[Sequence[dict[str, Any]]], dict[str, Any]],
        config: SphinxConfig,
        bos_token_id: int | None,
        column: str = "media",
        features: CachedFeatures | None = None,
    ) -> None:
        self.collate, self.config, self.column, self.features = collate, config, column, features
        self.rule = PlacementRule.of(config, bos_token_id)

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Build one batch.

        Args:
            rows: with ``input_ids``, ``labels`` and, in ``column``, files of images.

        Returns:
            The inner collator's batch without ``column``; where a row has images also what is shown of them.

        Raises:
            UserError: a file is no image, or a text has not one placeholder for each.
        """
        files = [list(row.get(self.column) or []) for row in rows]
        shown, useful = self._shown([file for own in files for file in own])
        lengths = iter(self.config.layout.lengths(useful).tolist())
        batch = self.collate(
            [self._row(row, [next(lengths) for _ in own]) for row, own in zip(rows, files, strict=True)]
        )
        batch.pop(self.column, None)
        return {**batch, **shown, "useful_views": useful} if len(useful) else batch

    def _shown(self, files: Sequence[str]) -> Shown:
        """Pixels of files, or the features that were kept of them."""
        if self.features is None:
            squares, useful = load_squares(files, self.config.view_config)
            return {"pixel_values": squares}, useful
        useful = useful_mask([self.features.sizes[file] for file in files], self.config.view_config)
        return {"features": self.features.of(files)} if files else {}, useful

    def _row(self, row: dict[str, Any], lengths: Sequence[int]) -> dict[str, Any]:
        """A row with its image tokens."""
        tokens, labels = row["input_ids"], row["labels"]
        return {
            **row,
            "input_ids": place_images(tokens, lengths, self.rule),
            "labels": place_labels(tokens, labels, lengths, self.rule),
        }
