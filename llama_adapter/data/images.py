"""Image files -> RGB pictures as they are meant to be seen.

Transparency is dropped, not painted over, as the encoders' own programs do it. Unusual: greys of more than
8 bits keep their values, brought to 8 bits by the range of their type; Pillow would cut them at 255.
"""

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped, UInt8

from llama_adapter.errors import UserError
from llama_adapter.file_formats.damage import decoding
from llama_adapter.lazy import needed

MAX_PIXELS = "LLAMA_ADAPTER_MAX_PIXELS"
"""Environment variable: most pixels of a picture. Without it Pillow's ``Image.MAX_IMAGE_PIXELS`` counts."""
MAX_RATIO = 200
"""Of the longer side to the shorter one. Cut or padded to a square, a longer picture shows nothing, and takes
any amount of memory on the way there."""

_ORIENTATION = 0x0112
"""The EXIF tag that says how a camera was held."""
_QUARTER_TURNS = (5, 6, 7, 8)
"""Its values where width and height change places."""
_BITS, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0
"""TIFF tags: bits of a value, and what values mean; and the meaning of a negative."""
ANIMATED = ("GIF", "WEBP", "PNG", "AVIF")
"""Formats of pictures that may move."""
_SEVERAL = (*ANIMATED, "TIFF")
"""Formats of several pictures. Those in a camera's MPO are one photo and what belongs to it."""
_BYTE, _WORD = 255, 65535
_WORDS = ("PNG", "PPM")
"""Formats whose greys Pillow gives the range of 16 bits in mode ``I``."""


def read_image(path: Any, channels: str = "rgb") -> Any:
    """A ``PIL.Image`` of three colours, turned upright as its EXIF data say.

    Of several pictures in a file it is the first one, with a warning.

    Args:
        path: an image file of any type that Pillow reads, such a file opened, or a picture of Pillow.
        channels: ``rgb`` or ``bgr``, the order of the colours.

    Raises:
        UserError: the file is missing, damaged, too large to be an image, or no image, or its values have no
            known range.
    """
    pil, operations = needed("PIL.Image", "pillow"), needed("PIL.ImageOps", "pillow")
    with open_image(path) as image:
        if image.format in _SEVERAL and getattr(image, "is_animated", False):
            warnings.warn(
                f"{str(path)!r} holds several pictures; as an image its first one is used. "
                "Give it as a video, or save the picture that is meant.",
                stacklevel=2,
            )
        upright = operations.exif_transpose(image)
        if is_deep(upright.mode):
            upright = pil.fromarray(_as_bytes(np.asarray(upright), image, path))
        if upright.mode == "P" and "transparency" in upright.info:
            upright = upright.convert("RGBA")  # on the direct way Pillow warns
        picture = upright.convert("RGB")
    if channels == "bgr":
        picture = pil.merge("RGB", picture.split()[::-1])
    return picture


def image_size(path: Any) -> tuple[int, int]:
    """Width and height of an image as it is meant to be seen, read without its pixels.

    Args:
        path: as ``read_image`` takes it.

    Raises:
        UserError: the file is missing, or no image.
    """
    with open_image(path) as image:
        turned = image.getexif().get(_ORIENTATION, 1) in _QUARTER_TURNS
        width, height = image.size
    return (height, width) if turned else (width, height)


def picture_format(path: Any) -> str:
    """Pillow's name for a file's format; empty where it is no picture, or cannot be opened."""
    try:
        with open_image(path) as image:
            return str(image.format or "")
    except UserError:
        return ""


@contextmanager
def open_image(path: Any) -> Iterator[Any]:
    """A picture of Pillow, for what reads it inside.

    Raises:
        UserError: it cannot be opened, or read inside, or is too large.
    """
    pil = needed("PIL.Image", "pillow")
    if most := os.environ.get(MAX_PIXELS):
        pil.MAX_IMAGE_PIXELS = _whole(most)
    with (
        decoding(path, "an image", "Replace the file, or leave its records out."),
        _opened(path) as image,
    ):
        check_size(path, *image.size)
        yield image


def check_size(path: Any, width: int, height: int) -> None:
    """Refuse a picture that would take too much memory, before any is taken.

    Args:
        path: its file, as messages call it.
        width: in pixels; of what is made of it, if that is larger.
        height: in pixels.

    Raises:
        UserError: it has too many pixels, or is a line rather than a picture.
    """
    most = needed("PIL.Image", "pillow").MAX_IMAGE_PIXELS
    if most is not None and width * height > most:
        raise UserError(
            f"{str(path)!r} has {width} x {height} pixels; at most {most:,} are decoded. "
            f"Make it smaller, or set the environment variable {MAX_PIXELS}."
        )
    if max(width, height) > MAX_RATIO * min(width, height):
        raise UserError(
            f"{str(path)!r} has {width} x {height} pixels: one side is over {MAX_RATIO} times the other. "
            "Cut it into pieces, or leave its records out."
        )


def is_deep(mode: str) -> bool:
    """Whether one of Pillow's modes holds greys of more than 8 bits."""
    return mode in ("I", "F") or mode.startswith("I;")


def _opened(path: Any) -> Any:
    """A picture of Pillow as a context that closes what it opens."""
    pil = needed("PIL.Image", "pillow")
    return nullcontext(path) if isinstance(path, pil.Image) else pil.open(path)


def _whole(most: str) -> int:
    """The environment's limit.

    Raises:
        UserError: it is none.
    """
    if not most.isdecimal() or not int(most):
        raise UserError(f"{MAX_PIXELS} is {most!r}. Use a number of pixels, such as 200000000.")
    return int(most)


def _as_bytes(
    values: Shaped[np.ndarray, "height width"], image: Any, path: Any
) -> UInt8[np.ndarray, "height width"]:
    """Greys of more than 8 bits at 8 bits.

    Raises:
        UserError: the range of the values is not known.
    """
    tags = getattr(image, "tag_v2", {})
    lowest, highest = float(values.min()), float(values.max())
    if image.mode.startswith("I;"):
        top = 2 ** int(tags.get(_BITS, (16,))[0]) - 1
    elif image.mode == "F" and highest <= 1:
        top = 1
    elif highest <= _BYTE and image.format not in _WORDS:
        top = _BYTE
    else:
        top = _WORD
    if not (lowest >= 0 and highest <= top and (image.mode != "F" or top < _WORD)):  # NaN is none of these
        raise UserError(
            f"{str(path)!r} holds greys from {lowest:g} to {highest:g} (mode {image.mode}), a range that no "
            f"picture has. Use 0 to 1, 0 to {_BYTE}, or whole numbers up to {_WORD}."
        )
    grey = np.rint(values * (_BYTE / top)).astype(np.uint8)
    return _BYTE - grey if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else grey


def image_problem(paths: Sequence[str], decode: bool = False, several: bool = False) -> str:
    """Why a record's images cannot be used; empty if they can.

    Args:
        paths: of a record.
        decode: whether to read the file, too, instead of only looking whether it is there.
        several: whether the model sees more than one per record.
    """
    if len(paths) > 1 and not several:
        return f"it names {len(paths)} images ({list(paths)}); it must name one at most"
    for path in paths:
        if not Path(path).is_file():
            return f"its image {path!r} is not there; data.media_folder of its source says where images lie"
        if decode:
            try:
                read_image(path)
            except UserError as error:
                return str(error)
    return ""
