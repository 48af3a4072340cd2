"""The towers: from a modality's values to a vector in the shared space.

``forward`` gives the vector before normalisation; ``embed`` makes it a unit vector times the tower's scale.

Dimensions: B inputs, D width of the tower, E width of the shared space; ``...`` shape of one input.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.nn import functional

from imagebind_llm.imagebind.config import (
    ImuTowerConfig,
    PatchTowerConfig,
    PointTowerConfig,
    TextTowerConfig,
    TowerConfig,
)
from imagebind_llm.imagebind.points import PointEncoder
from imagebind_llm.imagebind.stems import ImuStem, PatchStem, TextStem
from imagebind_llm.imagebind.transformer import Transformer

_LARGEST_SCALE = 100.0
_HEAD_EPS = 1e-6


class Head(nn.Module):
    """Norm and projection into the shared space."""

    def __init__(self, config: TowerConfig, width: int, embedding_size: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=_HEAD_EPS)
        self.dropout = nn.Dropout(config.head_dropout)
        self.projection = nn.Linear(width, embedding_size, bias=False)

    def forward(self, pooled: Float[Tensor, "B D"]) -> Float[Tensor, "B E"]:
        """One vector each."""
        projected: Tensor = self.projection(self.dropout(self.norm(pooled)))
        return projected


class Tower(nn.Module):
    """Base of all towers. Subclasses define ``pooled``."""

    log_scale: Tensor | None

    def __init__(self, config: TowerConfig, width: int, embedding_size: int) -> None:
        super().__init__()
        self.config = config
        self.head = Head(config, width, embedding_size)
        scale = None if config.scale is None else torch.tensor(math.log(config.scale))
        if scale is not None and config.learned_scale:
            self.log_scale = nn.Parameter(scale)
        else:
            self.register_buffer("log_scale", scale)

    def pooled(self, values: Shaped[Tensor, "B ..."]) -> Float[Tensor, "B D"]:
        """What enters the head."""
        raise NotImplementedError

    def forward(self, values: Shaped[Tensor, "B ..."]) -> Float[Tensor, "B E"]:
        """The vectors before normalisation."""
        found: Tensor = self.head(self.pooled(values))
        return found

    def embed(self, features: Float[Tensor, "B E"]) -> Float[Tensor, "B E"]:
        """Unit vectors times the tower's scale."""
        unit = functional.normalize(features, dim=-1)
        return unit if self.log_scale is None else unit * self.log_scale.exp().clamp(max=_LARGEST_SCALE)


class ClassTokenTower(Tower):
    """Vision, audio, depth, thermal and IMU: what the class token has become."""

    def __init__(self, config: PatchTowerConfig | ImuTowerConfig, embedding_size: int) -> None:
        super().__init__(config, config.hidden_size, embedding_size)
        self.stem = PatchStem(config) if isinstance(config, PatchTowerConfig) else ImuStem(config)
        self.transformer = Transformer(config)

    def pooled(self, values: Float[Tensor, "B ..."]) -> Float[Tensor, "B D"]:
        """The class token behind the last block."""
        tokens: Tensor = self.transformer(self.stem(values))
        return tokens[:, 0]


class TextTower(Tower):
    """Texts: what the end token has become. It is the token with the largest id, wherever it stands."""

    def __init__(self, config: TextTowerConfig, embedding_size: int) -> None:
        super().__init__(config, config.hidden_size, embedding_size)
        self.stem = TextStem(config)
        self.transformer = Transformer(config)

    def pooled(self, values: Int[Tensor, "B L"]) -> Float[Tensor, "B D"]:
        """The end token behind the last block."""
        tokens: Tensor = self.transformer(self.stem(values))
        return tokens[torch.arange(len(values), device=values.device), values.argmax(1)]


class PointTower(Tower):
    """Point clouds, also of different sizes."""

    def __init__(self, config: PointTowerConfig, embedding_size: int) -> None:
        super().__init__(config, config.output_width, embedding_size)
        self.encoder = PointEncoder(config)

    def pooled(self, values: Float[Tensor, "B N 3"] | Sequence[Float[Tensor, "_ 3"]]) -> Float[Tensor, "B D"]:
        """The point encoder's vector."""
        found: Tensor = self.encoder(values)
        return found

    def forward(
        self, values: Float[Tensor, "B N 3"] | Sequence[Float[Tensor, "_ 3"]]
    ) -> Float[Tensor, "B E"]:
        """The vectors before normalisation."""
        found: Tensor = self.head(self.pooled(values))
        return found


def make_tower(config: TowerConfig, embedding_size: int) -> Tower:
    """The tower for its settings, with random weights."""
    if isinstance(config, PatchTowerConfig | ImuTowerConfig):
        return ClassTokenTower(config, embedding_size)
    if isinstance(config, TextTowerConfig):
        return TextTower(config, embedding_size)
    if isinstance(config, PointTowerConfig):
        return PointTower(config, embedding_size)
    raise NotImplementedError(type(config).__name__)
