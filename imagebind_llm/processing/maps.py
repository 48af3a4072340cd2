"""Depth maps and thermal pictures.

Unusual: nothing is official here; the recipes are those with which users reproduced published results. A
pixel whose depth is unknown (0, NaN or infinite) gets disparity 0, like a point at infinity.
Source: docs/sources/imagebind-preprocessing.md#depth-thermal-imu.

Dimensions: S height and width of the result.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Float
from torch import Tensor

from imagebind_llm.processing.config import DepthConfig, ThermalConfig
from imagebind_llm.processing.pictures import read_map, resized_map
from llama_adapter.errors import UserError

_MILLIMETRES = 1000.0
_FARTHEST = 8.0
_BITS, _TURN = 16, 3


def load_depth(path: str | Path, config: DepthConfig, size: int) -> Float[Tensor, "1 S S"]:
    """A depth map as the depth tower takes it.

    Raises:
        UserError: the file is damaged or empty of values, or the sensor's focal length is missing.
    """
    values, _ = read_map(path)
    known = np.isfinite(values) & (values > 0)
    if not known.any():
        raise UserError(f"{str(path)!r} holds no depth above 0. Use a map with some known pixels.")
    if config.values == "disparity":
        disparity = np.where(known, values, 0)
    else:
        disparity = _disparity(np.where(known, values, 1), config)
        disparity = np.where(known, disparity, 0)
    return (resized_map(disparity / config.divisor, size) - config.mean) / config.std


def _disparity(
    values: Float[np.ndarray, "height width"], config: DepthConfig
) -> Float[np.ndarray, "height width"]:
    """Disparity in pixels from a file's depth."""
    if config.focal_length is None:
        raise UserError(
            f"depth.values is {config.values!r}, but depth.focal_length is not set. "
            "Set the sensor's focal length in pixels, or give disparity."
        )
    metres = values
    if config.values == "sun_rgbd":
        bits = values.astype(np.uint16)
        turned = (bits >> _TURN) | (bits << (_BITS - _TURN))
        metres = np.clip(turned.astype(np.float32) / _MILLIMETRES, 1 / _MILLIMETRES, _FARTHEST)
    elif config.values == "millimetres":
        metres = values / _MILLIMETRES
    return (config.baseline * config.focal_length / metres).astype(np.float32)


def load_thermal(path: str | Path, config: ThermalConfig, size: int) -> Float[Tensor, "1 S S"]:
    """A thermal picture as the thermal tower takes it.

    Raises:
        UserError: the file is damaged, or holds values of no known range.
    """
    values, eight_bit = read_map(path)
    lowest, highest = config.lowest, config.highest
    if lowest is None or highest is None:
        if not eight_bit:
            raise UserError(
                f"{str(path)!r} holds more than 8 bits per pixel, whose range is unknown. "
                "Set thermal.lowest and thermal.highest, such as those of all your pictures."
            )
        lowest, highest = 0.0, 255.0
    if not np.isfinite(values).all():
        raise UserError(f"{str(path)!r} holds NaN or infinite values. Replace the file.")
    picture = np.clip((values - lowest) / (highest - lowest), 0, 1)
    return (resized_map(picture, size) - config.mean) / config.std
