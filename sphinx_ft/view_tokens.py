"""Features of views -> tokens of the language model: projections, marks, and what stands for skipped views.

All views share one start and one end vector. Encoders are not known here.

Dimensions: I images, V views, P useful views of all, G places of the grid and one summary, C width of the
features, Q queries, D hidden size, N tokens of all images.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sphinx_ft.mixing import MixedFeatures
from sphinx_ft.tokens import POOLING, TokenConfig

_EPS = 1e-5


class ViewTokens(nn.Module):
    """What is trained between encoders and language model."""

    def __init__(
        self,
        config: TokenConfig,
        hidden_size: int,
        mixed_width: int,
        query_widths: Mapping[str, int],
        views: int,
    ) -> None:
        """Make the projections.

        Args:
            config: what becomes of a view's features.
            hidden_size: D.
            mixed_width: channels of all grid encoders together; 0 without such encoders.
            query_widths: of each query encoder, by its name, in order.
            views: V.
        """
        super().__init__()
        self.config = config
        self.mixed_projection = _projection(mixed_width, hidden_size) if mixed_width else None
        self.query_projections = nn.ModuleDict(
            {name: _projection(width, hidden_size) for name, width in query_widths.items()}
        )
        self.start = nn.Parameter(torch.empty(1, 1, hidden_size))
        self.end = nn.Parameter(torch.empty(1, 1, hidden_size))
        places = {"never": 0, "shared": 1, "per_place": views - 1}[config.skip]
        self.skip = nn.Parameter(torch.empty(1, places, hidden_size)) if places else None
        self.reset_marks(0.02)

    def reset_marks(self, std: float) -> None:
        """Draw start, end and skip anew."""
        for mark in (self.start, self.end, self.skip):
            if mark is not None and not mark.is_meta:
                nn.init.normal_(mark, std=std)

    def forward(self, features: MixedFeatures, encoded: Bool[Tensor, "I V"]) -> Float[Tensor, "N D"]:
        """Tokens of all images, one after another.

        Args:
            features: of the encoded views, image by image.
            encoded: which these are; the others are skipped.
        """
        places = encoded.nonzero().tolist()
        whole = torch.tensor([view == 0 for _, view in places], dtype=torch.bool, device=self.start.device)
        blocks = iter(self._blocks(features, whole))
        pieces = [
            next(blocks) if shown else self._skipped(view)
            for row in encoded.tolist()
            for view, shown in enumerate(row)
        ]
        tokens = torch.cat(pieces) if pieces else self.start[0, :0]
        if self.skip is not None and self.training:
            tokens = (
                tokens + 0 * self.skip.sum()
            )  # every process needs a gradient, also without skipped views
        return tokens

    def _blocks(self, features: MixedFeatures, whole: Bool[Tensor, " P"]) -> list[Float[Tensor, "_ D"]]:
        """Tokens of each encoded view."""
        if not self.config.pool_sub_images or self.mixed_projection is None:
            return list(self._block(features))
        kept, others = whole.nonzero()[:, 0], (~whole).nonzero()[:, 0]
        blocks: list[Tensor] = [self.start[0]] * len(whole)
        for indices, pooled in ((kept, False), (others, True)):
            part = _chosen(features, indices)
            if pooled and part.mixed is not None:
                part = MixedFeatures(_pooled(part.mixed, self.config.grid), part.queries)
            for index, block in zip(indices.tolist(), self._block(part), strict=True):
                blocks[index] = block
        return blocks

    def _block(self, features: MixedFeatures) -> Float[Tensor, "P _ D"]:
        """Tokens of views that have equally many."""
        parts = [
            projection(features.queries[name].to(self.start.dtype))
            for name, projection in self.query_projections.items()
        ]
        if self.mixed_projection is not None and features.mixed is not None:
            parts.append(self.mixed_projection(features.mixed.to(self.start.dtype)))
        views = len(parts[0])
        return torch.cat([self.start.expand(views, -1, -1), *parts, self.end.expand(views, -1, -1)], dim=1)

    def _skipped(self, view: int) -> Float[Tensor, "_ D"]:
        """What stands for a view that is not encoded."""
        skip = self.start[0, :0] if self.skip is None else self.skip[0]
        token = skip if len(skip) < 2 else skip[view - 1 : view]
        return torch.cat([self.start[0], token, self.end[0]]) if self.config.skip_marks else token


def _projection(width: int, hidden_size: int) -> nn.Sequential:
    """A linear map and a norm."""
    return nn.Sequential(nn.Linear(width, hidden_size), nn.LayerNorm(hidden_size, eps=_EPS))


def _chosen(features: MixedFeatures, indices: Tensor) -> MixedFeatures:
    """Features of some views."""
    mixed = None if features.mixed is None else features.mixed[indices.to(features.mixed.device)]
    return MixedFeatures(
        mixed, {name: tokens[indices.to(tokens.device)] for name, tokens in features.queries.items()}
    )


def _pooled(mixed: Float[Tensor, "P G C"], side: int) -> Float[Tensor, "P _ C"]:
    """The grid halved along each side, the summary kept."""
    grid = mixed[:, 1:].mT.unflatten(2, (side, side))
    return torch.cat([mixed[:, :1], nn.functional.avg_pool2d(grid, POOLING).flatten(2).mT], dim=1)
