"""OpenCLIP's ConvNeXt-XXL: the last feature map, each place through the head's norm.

It has no class token. Source: docs/sources/sphinx.md#encoders.
"""

from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float
from torch import Tensor

from llama_adapter.lazy import needed
from sphinx_ft.encoders.base import EncoderConfig, GridEncoder, GridOutput, settings_of


@dataclass(kw_only=True)
class ConvNextSettings:
    """Sizes of the network; the defaults are those of ConvNeXt-XXL."""

    depths: list[int] = field(default_factory=lambda: [3, 4, 30, 3])
    """Blocks of each stage."""
    widths: list[int] = field(default_factory=lambda: [384, 768, 1536, 3072])
    """Channels of each stage."""
    norm_eps: float = 1e-5
    """Of all norms."""


class ConvNextEncoder(GridEncoder):
    """The trunk of a ConvNeXt of timm."""

    def __init__(self, settings: ConvNextSettings) -> None:
        super().__init__()
        network = needed("timm.models.convnext", "timm").ConvNeXt
        self.width = settings.widths[-1]
        self.model: Any = network(
            depths=tuple(settings.depths),
            dims=tuple(settings.widths),
            norm_eps=settings.norm_eps,
            num_classes=0,
        )

    def forward(self, pixels: Float[Tensor, "P 3 s s"]) -> GridOutput:
        """One pass."""
        return GridOutput(None, self.model.head.norm(self.model.forward_features(pixels)))


def make(config: EncoderConfig) -> ConvNextEncoder:
    """The encoder, with random weights."""
    return ConvNextEncoder(settings_of(config, ConvNextSettings))
