"""Pictures, and maps of one value per pixel, at the size that the towers take.

Source: docs/sources/imagebind-preprocessing.md#pictures.

Dimensions: S height and width of the result.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from llama_adapter.data.images import read_image
from llama_adapter.errors import UserError
from llama_adapter.lazy import needed

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

_PICTURE_TYPES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")
_EIGHT_BIT = ("L", "LA", "P", "RGB", "RGBA", "1")


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


def resized_map(values: Float[np.ndarray, "height width"], size: int) -> Float[Tensor, "1 S S"]:
    """A map as ``resized`` makes a picture."""
    pil = needed("PIL.Image", "pillow")
    picture = pil.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    return torch.from_numpy(np.asarray(resized(picture, size), dtype=np.float32).copy()).unsqueeze(0)


def read_map(path: str | Path) -> tuple[Float[np.ndarray, "height width"], bool]:
    """One value per pixel, from a picture of any depth, or from NumPy's .npy and .npz.

    Returns:
        The map, and whether its values are those of an 8-bit picture.

    Raises:
        UserError: the file is missing or damaged, or holds no such map.
    """
    path = Path(path)
    if path.suffix in (".npy", ".npz"):
        values, eight_bit = read_array(path), False
    elif path.suffix.lower() in _PICTURE_TYPES:
        values, eight_bit = _read_grey(path)
    else:
        raise UserError(
            f"{str(path)!r} is no map of depth or heat. Use .png, .tif, .npy or another picture file."
        )
    if values.ndim == 3 and 1 in (values.shape[0], values.shape[-1]):
        values = values.squeeze(0 if values.shape[0] == 1 else -1)
    if values.ndim != 2 or min(values.shape) < 1:
        raise UserError(f"{str(path)!r} has the shape {values.shape}. Use one value per pixel.")
    return values.astype(np.float32), eight_bit


def read_array(path: Path) -> np.ndarray:
    """The array of a NumPy file; of a .npz with one array only."""
    try:
        content = np.load(path, allow_pickle=False)
        if isinstance(content, np.ndarray):
            return content
        with content:
            if len(content.files) != 1:
                raise UserError(f"{str(path)!r} holds the arrays {content.files}. Use a file with one array.")
            found: np.ndarray = content[content.files[0]]
            return found
    except UserError:
        raise
    except (OSError, ValueError, EOFError, MemoryError) as error:  # a damaged header may ask for any size
        raise UserError(f"{str(path)!r} cannot be read as an array: {error}. Replace the file.") from error


def _read_grey(path: Path) -> tuple[np.ndarray, bool]:
    """The values of a picture file; colours become grey, more than 8 bits stay as they are."""
    pil = needed("PIL.Image", "pillow")
    eight_bit = read_mode(path) in _EIGHT_BIT
    if eight_bit:
        return np.asarray(read_image(path).convert("L")), True
    try:
        with pil.open(path) as picture:
            return np.asarray(picture), False
    except (OSError, ValueError, SyntaxError, EOFError, pil.DecompressionBombError) as error:
        raise UserError(f"{str(path)!r} cannot be read as an image: {error}. Replace the file.") from error


def read_mode(path: Path) -> str:
    """Pillow's name for what a picture's pixels are; that of a colour picture where the file is damaged."""
    pil = needed("PIL.Image", "pillow")
    try:
        with pil.open(path) as picture:
            return str(picture.mode)
    except (OSError, ValueError, SyntaxError, EOFError, pil.DecompressionBombError):
        return "RGB"  # whose reader says what is wrong
