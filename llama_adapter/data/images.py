"""Image files -> RGB pictures as they are meant to be seen.

Transparency is dropped, not painted over, as the encoders' own programs do it.
"""

import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from llama_adapter.errors import UserError
from llama_adapter.lazy import needed

_BROKEN = (OSError, ValueError, SyntaxError, EOFError, TypeError, LookupError, struct.error, zlib.error)
"""What Pillow raises for files that are no images, or damaged ones."""


_ORIENTATION = 0x0112
"""The EXIF tag that says how a camera was held."""
_QUARTER_TURNS = (5, 6, 7, 8)
"""Its values where width and height change places."""


def read_image(path: Any, channels: str = "rgb") -> Any:
    """A ``PIL.Image`` of three colours, turned upright as its EXIF data say.

    Args:
        path: an image file of any type that Pillow reads, such a file opened, or a picture of Pillow.
        channels: ``rgb`` or ``bgr``, the order of the colours.

    Raises:
        UserError: the file is missing, damaged, too large to be an image, or no image.
    """
    pil, operations = needed("PIL.Image", "pillow"), needed("PIL.ImageOps", "pillow")
    with _opened(path) as image:
        upright = operations.exif_transpose(image)
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
    with _opened(path) as image:
        turned = image.getexif().get(_ORIENTATION, 1) in _QUARTER_TURNS
        width, height = image.size
    return (height, width) if turned else (width, height)


@contextmanager
def _opened(path: Any) -> Iterator[Any]:
    """A picture of Pillow, for what reads it inside.

    Raises:
        UserError: what is read cannot be.
    """
    pil = needed("PIL.Image", "pillow")
    try:
        with nullcontext(path) if isinstance(path, pil.Image) else pil.open(path) as image:
            yield image
    except (*_BROKEN, pil.DecompressionBombError) as error:
        raise UserError(
            f"{str(path)!r} cannot be read as an image: {error}. Replace the file, or leave its records out."
        ) from error


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
