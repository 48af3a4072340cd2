"""DINOv2 ViT-g/14 without registers: class token and patches behind the last norm.

Unusual: its table of positions, made for 37 x 37 patches, is resized as the original code of 2023 did it, by
a scale that is 0.1 patches too large. transformers resizes to the exact size, which gives other numbers.
Source: docs/sources/sphinx.md#encoders.

Dimensions: P views, N tokens, C width, s side of the input in pixels.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import Dinov2Config, Dinov2Model
from transformers.models.dinov2.modeling_dinov2 import Dinov2Embeddings

from sphinx_ft.encoders.base import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    EncoderConfig,
    GridEncoder,
    GridOutput,
    as_grid,
    settings_of,
)

OFFSET = 0.1
"""By how many patches the original code enlarges what it asks for."""


@dataclass(kw_only=True)
class Dinov2Settings:
    """Sizes of the transformer; the defaults are ViT-g/14's."""

    width: int = 1536
    """Channels of a token."""
    layers: int = 40
    """Blocks."""
    heads: int = 24
    """Attention heads of a block."""
    mlp_ratio: int = 4
    """Inner width of a block's MLP, in widths; of a SwiGLU two thirds of it."""
    image_size: int = 518
    """Side of the pictures that the table of positions was made for, in pixels."""
    patch_size: int = 14
    """Side of a patch, in pixels."""
    swiglu: bool = True
    """Whether the MLPs are gated, as in ViT-g."""


class _Embeddings(Dinov2Embeddings):
    """Positions as the original code resizes them."""

    def interpolate_pos_encoding(
        self, embeddings: Float[Tensor, "P N C"], height: int, width: int
    ) -> Float[Tensor, "1 _ C"]:
        """The table for an input of that many pixels."""
        table = self.position_embeddings
        side = round((table.shape[1] - 1) ** 0.5)
        patch_height, patch_width = self.patch_embeddings.patch_size
        rows, columns = height // patch_height, width // patch_width
        if (rows, columns) == (side, side):
            return table
        places = table[:, 1:].float().mT.unflatten(2, (side, side))
        scale = ((rows + OFFSET) / side, (columns + OFFSET) / side)
        resized = nn.functional.interpolate(places, scale_factor=scale, mode="bicubic")
        return torch.cat([table[:, :1], resized.flatten(2).mT.to(table.dtype)], dim=1)


class Dinov2Encoder(GridEncoder):
    """DINOv2 of transformers, with the original positions."""

    mean, std = IMAGENET_MEAN, IMAGENET_STD

    def __init__(self, settings: Dinov2Settings) -> None:
        super().__init__()
        self.width = settings.width
        config = Dinov2Config(
            hidden_size=settings.width,
            num_hidden_layers=settings.layers,
            num_attention_heads=settings.heads,
            mlp_ratio=settings.mlp_ratio,
            image_size=settings.image_size,
            patch_size=settings.patch_size,
            use_swiglu_ffn=settings.swiglu,
        )
        self.model = Dinov2Model(config)
        self.model.embeddings = _Embeddings(config)

    def forward(self, pixels: Float[Tensor, "P 3 s s"]) -> GridOutput:
        """One pass."""
        return as_grid(self.model(pixel_values=pixels).last_hidden_state)


def make(config: EncoderConfig) -> Dinov2Encoder:
    """The encoder, with random weights."""
    return Dinov2Encoder(settings_of(config, Dinov2Settings))
