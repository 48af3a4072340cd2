"""ImageBind's image tower as one of the core's encoders: an image -> its embedding.

An image is one token, its embedding as the bind network takes it: the mix of that image alone (``mixing``).
So a model that is trained on images can be asked about any modality. Other towers are not loaded.

Dimensions: B images, S height and width in pixels.
"""

import json
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from imagebind_llm.imagebind.config import ImageBindConfig
from imagebind_llm.imagebind.model import ImageBindModel
from imagebind_llm.mixing import mix
from imagebind_llm.processing.config import ProcessorConfig
from imagebind_llm.processing.pictures import load_picture
from llama_adapter.errors import UserError
from llama_adapter.vision.config import VisionConfig
from llama_adapter.vision.tower import ImageTransform, Tower, TowerOutput

IMAGES = "vision"
"""The tower's name."""


class ImageBindTower(Tower):
    """The image tower."""

    depth, class_token, prefix_tokens = 1, True, 1

    def __init__(self, model: ImageBindModel) -> None:
        super().__init__()
        self.model = model
        self.settings = {"imagebind": json.loads(json.dumps(model.config.to_dict()["towers"][IMAGES]))}

    def forward(self, pixels: Float[Tensor, "B 3 S S"], inner: list[int]) -> TowerOutput:
        """One pass; there are no inner levels."""
        features = self.model({IMAGES: pixels}).features[IMAGES]
        embedding = mix([features], [1.0])
        return TowerOutput({}, embedding[:, None], embedding)


def load_imagebind(config: VisionConfig, empty: bool = False) -> tuple[ImageBindTower, ImageTransform]:
    """The image tower of a folder, with its preprocessing.

    Args:
        config: names the folder.
        empty: without the content of its weights, on the meta device.

    Raises:
        UserError: there is no such folder, or it lacks the image tower; or a projection was asked for.
    """
    if config.projection:
        raise UserError("projection=True does not go with the kind 'imagebind'. Leave it out.")
    folder = config.name_or_path
    settings = ProcessorConfig.load(folder)
    if empty:
        with torch.device("meta"):
            model: nn.Module = ImageBindModel(ImageBindConfig.from_pretrained(folder, modalities=[IMAGES]))
    else:
        model = ImageBindModel.from_pretrained(folder, modalities=[IMAGES])
    tower: Any = ImageBindTower(model)  # type: ignore[arg-type]
    size = settings.image_size
    return tower, ImageTransform(lambda picture: load_picture(picture, size), {"image_size": size})
