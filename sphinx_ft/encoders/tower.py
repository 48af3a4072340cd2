"""Any image encoder of the core as a member of a mix: timm's, transformers', open_clip's.

The settings are those of ``VisionConfig``. Size and normalisation of the input are found by what the
encoder's own preprocessing makes of a black and a white picture. An encoder without a class token gives none.

Dimensions: P views, C width, s side of the input in pixels.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from llama_adapter.errors import UserError
from llama_adapter.lazy import needed
from llama_adapter.vision import VisionConfig, VisionEncoder, empty_encoder, load_encoder
from sphinx_ft.encoders.base import EncoderConfig, GridEncoder, GridOutput, as_grid, settings_of


class TowerEncoder(GridEncoder):
    """The tokens of one of the core's encoders."""

    def __init__(self, encoder: VisionEncoder) -> None:
        super().__init__()
        picture = needed("PIL.Image", "pillow")
        black, white = (
            encoder.transform.apply(picture.new("RGB", (64, 64), shade)) for shade in ("black", "white")
        )
        std = 1 / (white - black).mean(dim=(1, 2))
        self.mean = tuple((-black.mean(dim=(1, 2)) * std).tolist())
        self.std = tuple(std.tolist())
        self.encoder = encoder
        self.width = encoder.feature_shape[1]

    def forward(self, pixels: Float[Tensor, "P 3 s s"]) -> GridOutput:
        """One pass."""
        tower = self.encoder.tower
        output = as_grid(self.encoder.select(self.encoder(pixels)), tower.prefix_tokens)
        return output if tower.class_token else GridOutput(None, output.grid)


def make(config: EncoderConfig) -> TowerEncoder:
    """The encoder, with the weights that its settings name.

    Raises:
        UserError: it cannot be loaded, or gives one token per image.
    """
    settings: VisionConfig = settings_of(config, VisionConfig)
    if settings.output != "tokens":
        raise UserError(f"output={settings.output!r} does not go with a mix of encoders. Use 'tokens'.")
    empty = torch.get_default_device().type == "meta"
    with torch.device("cpu"):
        return TowerEncoder(empty_encoder(settings) if empty else load_encoder(settings))
