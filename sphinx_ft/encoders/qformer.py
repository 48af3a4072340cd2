"""BLIP-2's image transformer and Q-Former: the last states of its queries.

It takes CLIP's normalisation. Source: docs/sources/sphinx.md#encoders.

Dimensions: P views, Q queries, C width of the Q-Former, s side of the input in pixels.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import Blip2QFormerConfig, Blip2QFormerModel, Blip2VisionConfig, Blip2VisionModel

from sphinx_ft.encoders.base import EncoderConfig, QueryEncoder, settings_of


@dataclass(kw_only=True)
class QFormerSettings:
    """Sizes of both parts; the defaults are those of BLIP-2 for OPT-2.7B."""

    width: int = 768
    """Channels of a query."""
    layers: int = 12
    """Blocks of the Q-Former; every second one attends to the image."""
    heads: int = 12
    """Attention heads of its blocks."""
    inner_width: int = 3072
    """Of its MLPs."""
    image_width: int = 1408
    """Channels of a token of the image."""
    image_layers: int = 39
    """Blocks of the image transformer."""
    image_heads: int = 16
    """Attention heads of its blocks."""
    image_inner_width: int = 6144
    """Of its MLPs."""
    image_size: int = 224
    """Side of the input, in pixels."""
    patch_size: int = 14
    """Side of a patch, in pixels."""


class QFormerEncoder(QueryEncoder):
    """BLIP-2 up to its queries."""

    def __init__(self, settings: QFormerSettings, queries: int) -> None:
        super().__init__()
        self.width = settings.width
        self.vision_model = Blip2VisionModel(_vision(settings))
        self.qformer = Blip2QFormerModel(_qformer(settings))
        self.query_tokens = nn.Parameter(torch.zeros(1, queries, settings.width))

    def forward(self, pixels: Float[Tensor, "P 3 s s"]) -> Float[Tensor, "P Q C"]:
        """One pass."""
        seen = self.vision_model(pixel_values=pixels).last_hidden_state
        queries = self.query_tokens.expand(len(pixels), -1, -1)
        states: Tensor = self.qformer(query_embeds=queries, encoder_hidden_states=seen).last_hidden_state
        return states


def _vision(settings: QFormerSettings) -> Blip2VisionConfig:
    return Blip2VisionConfig(
        hidden_size=settings.image_width,
        intermediate_size=settings.image_inner_width,
        num_hidden_layers=settings.image_layers,
        num_attention_heads=settings.image_heads,
        image_size=settings.image_size,
        patch_size=settings.patch_size,
    )


def _qformer(settings: QFormerSettings) -> Blip2QFormerConfig:
    return Blip2QFormerConfig(
        hidden_size=settings.width,
        intermediate_size=settings.inner_width,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        encoder_hidden_size=settings.image_width,
    )


def make(config: EncoderConfig) -> QFormerEncoder:
    """The encoder, with random weights."""
    return QFormerEncoder(settings_of(config, QFormerSettings), config.queries)
