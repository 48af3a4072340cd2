"""Depth maps and thermal pictures.

Unusual: nothing is official here; the recipes are those with which users reproduced published results. A
pixel whose depth is unknown (0, NaN or infinite) gets disparity 0, like a point at infinity. Files whose
values cannot be what the settings say are refused: a map in other units gives numbers, but no depth.
Source: docs/sources/imagebind-preprocessing.md#depth-thermal-imu.

Dimensions: S height and width of the result.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Float, Shaped
from torch import Tensor

from imagebind_llm.processing.config import DepthConfig, ThermalConfig
from imagebind_llm.processing.pictures import read_map, resized_map
from llama_adapter.errors import UserError

_MILLIMETRES = 1000.0
_FARTHEST = 8.0
_BITS, _TURN = 16, 3
_NEAR, _FAR = 0.01, 1000.0
"""Metres between which the middle of every scene lies."""


def load_depth(path: str | Path, config: DepthConfig, size: int) -> Float[Tensor, "1 S S"]:
    """A depth map as the depth tower takes it.

    Raises:
        UserError: the file is damaged, empty of values or in other units than the settings say, or the
            sensor's focal length is missing.
    """
    values = read_map(path)
    _check_type(path, values, config)
    values = _depth(values, config).astype(np.float32)
    known = np.isfinite(values) & (values > 0)
    if not known.any():
        raise UserError(f"{str(path)!r} holds no depth above 0. Use a map with some known pixels.")
    if config.values != "disparity":
        _check_distance(path, float(np.median(values[known])), config)
        values = _disparity(np.where(known, values, 1), config)
    disparity = np.where(known, values, 0)
    return (resized_map(disparity / config.divisor, size) - config.mean) / config.std


def _check_type(path: str | Path, values: Shaped[np.ndarray, "height width"], config: DepthConfig) -> None:
    """Refuse a type of value that the units do not come in.

    Raises:
        UserError: they do not.
    """
    stated, fractions = config.values, values.dtype.kind == "f"
    fits = {
        "disparity": fractions or config.divisor != 1,
        "metres": fractions,
        "millimetres": values.dtype.itemsize > 1,
        "sun_rgbd": values.dtype.kind in "iu" and values.dtype.itemsize > 1,
    }
    if not fits[stated]:
        raise UserError(
            f"{str(path)!r} holds values of the type {values.dtype}, from {values.min()} to "
            f"{values.max()}, but depth.values is {stated!r}. "
            "Set depth.values to what the files hold (millimetres, say), or depth.divisor to what whole "
            "disparities are to be divided by."
        )


def _check_distance(path: str | Path, middle: float, config: DepthConfig) -> None:
    """Refuse depths that no scene has.

    Raises:
        UserError: they are too near or too far.
    """
    if not _NEAR <= middle <= _FAR:
        raise UserError(
            f"{str(path)!r} would show a scene at {middle:g} m, depth.values being {config.values!r}. "
            "Set depth.values to the unit of the files."
        )


def _depth(
    values: Shaped[np.ndarray, "height width"], config: DepthConfig
) -> Shaped[np.ndarray, "height width"]:
    """A file's depth in metres; disparity as it is."""
    if config.values == "sun_rgbd":
        bits = values.astype(np.uint16)
        turned = (bits >> _TURN) | (bits << (_BITS - _TURN))
        near = np.clip(turned.astype(np.float32) / _MILLIMETRES, 1 / _MILLIMETRES, _FARTHEST)
        return np.where(bits > 0, near, 0)
    return values / _MILLIMETRES if config.values == "millimetres" else values


def _disparity(
    metres: Float[np.ndarray, "height width"], config: DepthConfig
) -> Float[np.ndarray, "height width"]:
    """Disparity in pixels."""
    if config.focal_length is None:
        raise UserError(
            f"depth.values is {config.values!r}, but depth.focal_length is not set. "
            "Set the sensor's focal length in pixels, or give disparity."
        )
    return (config.baseline * config.focal_length / metres).astype(np.float32)


def load_thermal(path: str | Path, config: ThermalConfig, size: int) -> Float[Tensor, "1 S S"]:
    """A thermal picture as the thermal tower takes it.

    Raises:
        UserError: the file is damaged, or holds values of no known range.
    """
    values = read_map(path)
    lowest, highest = config.lowest, config.highest
    if lowest is None or highest is None:
        if values.dtype != np.uint8:
            raise UserError(
                f"{str(path)!r} holds more than 8 bits per pixel, whose range is unknown. "
                "Set thermal.lowest and thermal.highest, such as those of all your pictures."
            )
        lowest, highest = 0.0, 255.0
    if not np.isfinite(values).all():
        raise UserError(f"{str(path)!r} holds NaN or infinite values. Replace the file.")
    if values.max() < lowest or values.min() > highest:
        raise UserError(
            f"{str(path)!r} holds values from {values.min()} to {values.max()}, none between "
            f"thermal.lowest and thermal.highest, {lowest:g} and {highest:g}. "
            "Set them to the range of your pictures."
        )
    picture = np.clip((values.astype(np.float32) - lowest) / (highest - lowest), 0, 1)
    return (resized_map(picture, size) - config.mean) / config.std
