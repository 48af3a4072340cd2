"""Pictures -> padded squares, as every encoder of the mix is shown them.

Source: docs/sources/sphinx.md#padding-and-boxes.

Dimensions: I images, V views, S side of the square in pixels.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from llama_adapter.data.images import check_size, read_image
from llama_adapter.lazy import needed
from sphinx_ft.views import CLIP_MEAN, CLIP_STD, ViewConfig, place, useful_mask


def load_squares(
    pictures: Sequence[Any], config: ViewConfig
) -> tuple[Float[Tensor, "I 3 S S"], Bool[Tensor, "I V"]]:
    """Pictures padded, resized and normalised, and which of their views are useful.

    Args:
        pictures: files, such files opened, or pictures of Pillow.
        config: the square and its views.

    Raises:
        UserError: a file is no image.
    """
    opened = [read_image(picture) for picture in pictures]
    for file, picture in zip(pictures, opened, strict=True):
        check_size(file, *[max(picture.size)] * 2)  # of the square
    squares = [square(picture, config) for picture in opened]
    side = config.image_size
    pixels = torch.stack(squares) if squares else torch.empty(0, 3, side, side)
    return pixels, useful_mask([picture.size for picture in opened], config)


def square(picture: Any, config: ViewConfig) -> Float[Tensor, "3 S S"]:
    """A ``PIL.Image`` in the square that it is padded to, with CLIP's normalisation."""
    pil = needed("PIL.Image", "pillow")
    placement = place(picture.size, config)
    padded = pil.new("RGB", (placement.side, placement.side), tuple(config.colour))
    padded.paste(picture, (placement.left, placement.top))
    resized = padded.resize((config.image_size, config.image_size), pil.Resampling.BICUBIC)
    values = torch.from_numpy(np.asarray(resized, dtype=np.float32).copy()).permute(2, 0, 1) / 255
    return (values - torch.tensor(CLIP_MEAN).view(3, 1, 1)) / torch.tensor(CLIP_STD).view(3, 1, 1)
