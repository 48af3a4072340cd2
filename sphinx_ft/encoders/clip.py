"""OpenAI's CLIP ViT-L/14: class token and patches behind the last norm, without the projection.

The published models have OpenAI's weights, whose activation is QuickGELU; which one they were trained with in
SPHINX is not known, the published code's default is GELU. Source: docs/sources/sphinx.md#clips-activation.
"""

from dataclasses import dataclass
from typing import cast

from jaxtyping import Float
from torch import Tensor, nn

from llama_adapter.lazy import needed
from llama_adapter.vision.open_clip_tower import OpenClipTower
from sphinx_ft.encoders.base import EncoderConfig, GridEncoder, GridOutput, as_grid, settings_of


@dataclass(kw_only=True)
class ClipSettings:
    """Sizes of the transformer; the defaults are ViT-L/14's."""

    width: int = 1024
    """Channels of a token."""
    layers: int = 24
    """Blocks."""
    heads: int = 16
    """Attention heads of a block."""
    mlp_ratio: float = 4.0
    """Inner width of a block's MLP, in widths."""
    image_size: int = 224
    """Side of the input, in pixels."""
    patch_size: int = 14
    """Side of a patch, in pixels."""
    output_width: int = 768
    """Of the projection, which is kept but not used."""
    quick_gelu: bool = False
    """Whether the activation is QuickGELU, as OpenAI trained it."""


class ClipEncoder(GridEncoder):
    """CLIP's image transformer."""

    def __init__(self, settings: ClipSettings) -> None:
        super().__init__()
        open_clip = needed("open_clip.transformer", "open_clip_torch")
        self.width = settings.width
        model = open_clip.VisionTransformer(
            image_size=settings.image_size,
            patch_size=settings.patch_size,
            width=settings.width,
            layers=settings.layers,
            heads=settings.heads,
            mlp_ratio=settings.mlp_ratio,
            output_dim=settings.output_width,
            act_layer=open_clip.QuickGELU if settings.quick_gelu else nn.GELU,
        )
        self.tower = OpenClipTower(model, projection=False)

    def forward(self, pixels: Float[Tensor, "P 3 s s"]) -> GridOutput:
        """One pass."""
        return as_grid(cast("Tensor", self.tower(pixels, []).last))


def make(config: EncoderConfig) -> ClipEncoder:
    """The encoder, with random weights."""
    return ClipEncoder(settings_of(config, ClipSettings))
