"""Pictures, and maps of one value per pixel, at the size that the towers take.

Source: docs/sources/imagebind-preprocessing.md#pictures.

Dimensions: S height and width of the result.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from imagebind_llm.processing.arrays import ARRAYS, read_array
from llama_adapter.data.images import check_size, is_deep, open_image, read_image
from llama_adapter.errors import UserError
from llama_adapter.lazy import needed

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

PICTURE_TYPES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".pgm", ".pfm")
_GREY = 8
"""Most that the colours of a grey picture differ, on average; compression lets them."""


def load_picture(path: Any, size: int) -> Float[Tensor, "3 S S"]:
    """A picture as the vision tower takes it.

    Args:
        path: a file, such a file opened, or a picture of Pillow.
        size: S.

    Raises:
        UserError: the file is missing, damaged, too large to be a picture, or no picture.
    """
    pixels = np.asarray(resized(read_image(path), size), dtype=np.float32)
    values = torch.from_numpy(pixels.copy()).permute(2, 0, 1) / 255
    return (values - torch.tensor(CLIP_MEAN).view(3, 1, 1)) / torch.tensor(CLIP_STD).view(3, 1, 1)


def resized(picture: Any, size: int) -> Any:
    """A ``PIL.Image`` whose shorter side is ``size``, by bicubic interpolation, and its square centre."""
    pil = needed("PIL.Image", "pillow")
    width, height = picture.size
    short = min(width, height)
    width, height = int(size * width / short), int(size * height / short)
    scaled = picture.resize((width, height), pil.Resampling.BICUBIC)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return scaled.crop((left, top, left + size, top + size))


def resized_map(values: Shaped[np.ndarray, "height width"], size: int) -> Float[Tensor, "1 S S"]:
    """A map as ``resized`` makes a picture."""
    pil = needed("PIL.Image", "pillow")
    picture = pil.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    return torch.from_numpy(np.asarray(resized(picture, size), dtype=np.float32).copy()).unsqueeze(0)


def read_map(path: str | Path) -> Shaped[np.ndarray, "height width"]:
    """One value per pixel as the file holds it, from a picture of any depth or an array file.

    Its type says what the values were: bytes of a picture of 8 bits, whole numbers, or fractions.

    Raises:
        UserError: the file is missing or damaged, or holds no such map.
    """
    path = Path(path)
    if path.suffix.lower() in ARRAYS:
        values = read_array(path)
    elif path.suffix.lower() in PICTURE_TYPES:
        values = _read_grey(path)
    else:
        raise UserError(
            f"{str(path)!r} is no map of depth or heat. Use .png, .tif, .npy or another picture file."
        )
    if values.ndim == 3 and 1 in (values.shape[0], values.shape[-1]):
        values = values.squeeze(0 if values.shape[0] == 1 else -1)
    if values.ndim != 2 or min(values.shape) < 1:
        raise UserError(f"{str(path)!r} has the shape {values.shape}. Use one value per pixel.")
    check_size(path, values.shape[1], values.shape[0])
    return values


def _read_grey(path: Path) -> Shaped[np.ndarray, "height width"]:
    """The values of a picture file, upright; more than 8 bits stay as they are.

    Raises:
        UserError: it cannot be read, or is in colours.
    """
    with open_image(path) as picture:
        if is_deep(picture.mode):
            turned = needed("PIL.ImageOps", "pillow").exif_transpose(picture)
            return np.asarray(turned)
    colours = np.asarray(read_image(path), dtype=np.int16)
    spread = np.abs(np.diff(colours, axis=2)).mean()
    if spread > _GREY:
        raise UserError(
            f"{str(path)!r} is a picture in colours; a map has one value per pixel. Use the values that its "
            "colours were made of."
        )
    return np.asarray(read_image(path).convert("L"))
