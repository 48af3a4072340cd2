"""How many tokens stand for an image, and in which order: plain counting, without a model.

A view is [start; tokens of the query encoders; summary and places of the common grid; end]. A view that is
skipped is one token in its place. Source: docs/sources/sphinx.md#image-tokens, #skip-tokens.

Dimensions: I images, V views.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from llama_adapter.errors import UserError
from sphinx_ft.encoders.base import EncoderConfig

POOLING = 2
"""By what a pooled grid is smaller, along each side."""


@dataclass(kw_only=True)
class TokenConfig:
    """What becomes of a view's features."""

    grid: int = 16
    """Rows and columns of the grid that all encoders' features are brought to."""
    pool_sub_images: bool = False
    """Whether the grid of sub-images is halved along each side before it is projected."""
    skip: Literal["never", "shared", "per_place"] = "never"
    """Whether views of padding alone are replaced by a learned token: one for all of them, or one for each
    place of the grid. ``never`` encodes them, as all released models do."""
    skip_marks: bool = False
    """Whether start and end stand around a skipped view, too."""

    def __post_init__(self) -> None:
        if self.pool_sub_images and self.grid % POOLING:
            raise UserError(
                f"A grid of {self.grid} cannot be halved for sub-images. Use an even grid, "
                "or pool_sub_images=False."
            )


@dataclass(frozen=True)
class TokenLayout:
    """The lengths of views."""

    config: TokenConfig
    """Of the views' tokens."""
    queries: int
    """Tokens of all query encoders together."""
    has_grid: bool
    """Whether some encoder has a grid."""

    @classmethod
    def of(cls, config: TokenConfig, encoders: Sequence[EncoderConfig]) -> "TokenLayout":
        """The layout of a mix."""
        return cls(config, sum(one.queries for one in encoders), any(not one.queries for one in encoders))

    def view_length(self, view: int) -> int:
        """Tokens of a view that is encoded, start and end included."""
        side = self.config.grid // (POOLING if self.config.pool_sub_images and view else 1)
        return 2 + self.queries + (1 + side * side if self.has_grid else 0)

    @property
    def skipped_length(self) -> int:
        """Tokens of a view that is skipped."""
        return 3 if self.config.skip_marks else 1

    def encoded(self, useful: Bool[Tensor, "I V"]) -> Bool[Tensor, "I V"]:
        """Which views are encoded."""
        return torch.ones_like(useful) if self.config.skip == "never" else useful

    def lengths(self, useful: Bool[Tensor, "I V"]) -> Int[Tensor, " I"]:
        """Tokens of each image.

        Args:
            useful: which views show some of it.
        """
        views = torch.tensor([self.view_length(view) for view in range(useful.shape[1])])
        encoded = self.encoded(useful).cpu()
        return torch.where(encoded, views, self.skipped_length).sum(dim=1)
