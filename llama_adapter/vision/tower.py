"""What the three libraries' encoders have in common here: blocks in a row, tokens, a global feature.

Convolutional encoders have stages instead of blocks and places of a feature map instead of patches; all maps
are token sequences, row by row. Neither files nor caches are known here.

Dimensions: B images, N tokens, C width; both may differ from level to level. S height, T width in pixels.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class TowerOutput:
    """What one pass gives."""

    inner: dict[int, Float[Tensor, "B _ _"]]
    """Tokens behind inner blocks, by the number of the block."""
    last: Float[Tensor, "B _ _"]
    """Tokens behind the last block and the final norm (and the projection, if any)."""
    pooled: Float[Tensor, "B _"]
    """The encoder's own global feature (projected like the tokens)."""


class Tower(nn.Module, ABC):
    """An encoder of one of the libraries."""

    depth: int
    """Number of blocks or stages."""
    class_token: bool
    """Whether the first token stands for the whole image."""
    prefix_tokens: int
    """Number of tokens before those of the patches."""
    settings: Mapping[str, Any]
    """All besides weights that decides what comes out, as JSON values, without names and places."""

    @abstractmethod
    def forward(self, pixels: Float[Tensor, "B 3 S T"], inner: list[int]) -> TowerOutput:
        """One pass.

        Args:
            pixels: as the encoder's own preprocessing makes them.
            inner: numbers of the blocks before the last whose tokens are wanted, ascending.
        """

    def global_feature(self, tokens: Float[Tensor, "B N C"]) -> Float[Tensor, "B C"]:
        """Of an inner block: the class token, or the mean over the patches."""
        return tokens[:, 0] if self.class_token else tokens[:, self.prefix_tokens :].mean(1)


@dataclass(frozen=True)
class ImageTransform:
    """The preprocessing that belongs to an encoder."""

    apply: Callable[[Any], Float[Tensor, "3 S T"]]
    """From a PIL picture to pixels."""
    settings: Mapping[str, Any]
    """All that decides the pixels, as JSON values."""


def describe(module: nn.Module) -> dict[str, Any]:
    """The structure of an encoder that has no config of its own: its modules and what they do not print."""
    heads = [m.num_heads for m in module.modules() if isinstance(getattr(m, "num_heads", None), int)]
    return {"modules": repr(module), "heads": heads}


def as_tokens(features: Float[Tensor, "..."], channels_last: bool = False) -> Float[Tensor, "B N C"]:
    """A token sequence (B, N, C), a feature map (B, C, S, T) or (B, S, T, C), or one vector (B, C)."""
    if features.dim() == 2:
        return features[:, None]
    if features.dim() == 4:
        return features.flatten(1, 2) if channels_last else features.flatten(2).mT
    return features


def with_prefix(
    level: Float[Tensor, "B ..."] | tuple[Float[Tensor, "B ..."], Float[Tensor, "B _ C"]],
) -> Float[Tensor, "B N C"]:
    """Tokens of one level, from a map (B, C, S, T) alone or with the tokens that stand before it."""
    if isinstance(level, tuple):
        return torch.cat([level[1], as_tokens(level[0])], dim=1)
    return as_tokens(level)
