"""LLaMA-Adapter V2's conditioner: learned queries look at the image through transformer blocks.

Queries stand before the image's tokens, all of them pass the blocks together, and only what became of the
queries is kept: one vector per prompt. Modules bear the names of the official files, so that a state dict is
what ``convert`` keeps in ``conditioner.safetensors``. Every LayerNorm has eps 1e-5, GELU is exact.

Source: docs/sources/llama-adapter.md#initial-values, and #arithmetic, 8 and 9.

Dimensions: R records, N image tokens, C their width, P queries, one per prompt, W width of the blocks, L
length of a sequence, H hidden size of the language model.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn
from torch.nn import functional

from llama_adapter.conditioning.base import Conditioner, ConditionerConfig, register_conditioner
from llama_adapter.errors import UserError

PUBLISHED_HEADS = 16
"""Attention heads of all published files, which do not say it."""

_BLOCK = re.compile(r"^visual_blocks\.(\d+)\.")


@dataclass(kw_only=True)
class VisualQueriesConfig(ConditionerConfig):
    """One vector per prompt from all tokens of an image. The defaults are those of the published models."""

    kind: Literal["visual_queries"] = "visual_queries"
    """Always ``visual_queries``."""
    feature_width: int = 768
    """Width of the image's tokens."""
    num_queries: int = 10
    """Number of queries: the prompt length of the adapter."""
    width: int = 768
    """Width of the blocks."""
    depth: int = 8
    """Number of blocks."""
    num_heads: int = PUBLISHED_HEADS
    """Attention heads of a block."""
    mlp_width: int = 3072
    """Inner width of a block's MLP."""
    initial_scale: float = 1.0
    """Scale of what is added to the prompts, at the start; the published models start with 1. Where the
    base's embeddings are small, less learns faster."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % self.num_heads:
            raise UserError(
                f"width={self.width} of the conditioner does not divide into {self.num_heads} heads. "
                "Set num_heads to a divisor."
            )

    def sizes(self, hidden_size: int, feature_width: int, prompt_length: int) -> dict[str, int]:
        """As the base class has it, with a query for each prompt."""
        return super().sizes(hidden_size, feature_width, prompt_length) | {"num_queries": prompt_length}

    @classmethod
    def of_tensors(
        cls, tensors: Mapping[str, Shaped[Tensor, "..."]], num_heads: int = PUBLISHED_HEADS
    ) -> "VisualQueriesConfig":
        """What the shapes of an official file's tensors say; 1 where one is missing.

        Args:
            tensors: by official name.
            num_heads: which no shape tells.
        """
        blocks = [int(found[1]) for name in tensors if (found := _BLOCK.match(name))]
        queries, width = _shape(tensors, "visual_query.weight", 2)
        return cls(
            hidden_size=_shape(tensors, "visual_proj.weight", 2)[0],
            feature_width=_shape(tensors, "clip_proj.weight", 2)[1],
            num_queries=queries,
            width=width,
            depth=max(blocks, default=0) + 1,
            num_heads=num_heads,
            mlp_width=_shape(tensors, "visual_blocks.0.mlp.fc1.bias", 1)[0],
        )


@register_conditioner("visual_queries", VisualQueriesConfig)
class VisualQueries(Conditioner):
    """Projection, blocks, projection; queries start normally distributed, as prompts do."""

    def __init__(self, config: VisualQueriesConfig) -> None:
        super().__init__(config)
        self.clip_proj = nn.Linear(config.feature_width, config.width)
        self.clip_proj_norm = nn.LayerNorm(config.width)
        self.visual_query = nn.Embedding(config.num_queries, config.width)
        self.visual_blocks = nn.ModuleList(_Block(config) for _ in range(config.depth))
        self.visual_proj = nn.Linear(config.width, config.hidden_size)
        self.visual_proj_norm = nn.LayerNorm(config.hidden_size)
        nn.init.constant_(self.visual_proj_norm.weight, config.initial_scale)

    def vectors(
        self, features: Float[Tensor, "R N C"], mask: Bool[Tensor, "R N"] | None
    ) -> Float[Tensor, "R P H"]:
        """What the queries saw; tokens outside ``mask`` are seen by nobody."""
        tokens = self.clip_proj_norm(self.clip_proj(features))
        queries = self.visual_query.weight.expand(len(tokens), -1, -1)
        count = queries.shape[1]
        seen = None if mask is None else functional.pad(mask, (count, 0), value=True)[:, None, None]
        x = torch.cat([queries, tokens], dim=1)
        for block in self.visual_blocks:
            x = block(x, seen)
        return self.visual_proj_norm(self.visual_proj(x[:, :count]))


class _Block(nn.Module):
    """A transformer block with norms before its halves."""

    def __init__(self, config: VisualQueriesConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width)
        self.attn = _Attention(config.width, config.num_heads)
        self.norm2 = nn.LayerNorm(config.width)
        self.mlp = _Mlp(config.width, config.mlp_width)

    def forward(
        self, x: Float[Tensor, "R L W"], seen: Bool[Tensor, "R 1 1 L"] | None
    ) -> Float[Tensor, "R L W"]:
        """Attention to the positions that are ``seen``, then the MLP."""
        x = x + self.attn(self.norm1(x), seen)
        return x + self.mlp(self.norm2(x))


class _Attention(nn.Module):
    """Attention in both directions; query, key and value in one map."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(
        self, x: Float[Tensor, "R L W"], seen: Bool[Tensor, "R 1 1 L"] | None
    ) -> Float[Tensor, "R L W"]:
        """Attend to the positions that are ``seen``."""
        query, key, value = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=seen)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class _Mlp(nn.Module):
    """Linear map, GELU, linear map."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, inner)
        self.fc2 = nn.Linear(inner, width)

    def forward(self, x: Float[Tensor, "R L W"]) -> Float[Tensor, "R L W"]:
        """Each position for itself."""
        return self.fc2(functional.gelu(self.fc1(x)))


def _shape(tensors: Mapping[str, Shaped[Tensor, "..."]], name: str, rank: int) -> tuple[int, ...]:
    """A tensor's shape; ones where it is missing or of another rank, and so refused later."""
    found = tuple(tensors[name].shape) if name in tensors else ()
    return found if len(found) == rank and min(found) else (1,) * rank
