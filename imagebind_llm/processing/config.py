"""Settings of the processor; the defaults are the published preprocessing.

Source: docs/sources/imagebind-preprocessing.md. Depth, heat and IMU have no published loader: the defaults
are what users found to
reproduce the published results.
"""

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from llama_adapter.errors import UserError

PROCESSOR_FILE = "preprocessor_config.json"


def _require(config: Any, name: str, fits: bool, accepted: str) -> None:
    """Refuse a value.

    Raises:
        UserError: it does not fit.
    """
    if not fits:
        raise UserError(f"{name} of {type(config).__name__} is {getattr(config, name)!r}. Use {accepted}.")


def _require_numbers(config: Any, above_zero: Sequence[str], any_size: Sequence[str] = ()) -> None:
    """Refuse what is no finite number, or none above 0; None may stand where it is the default.

    Raises:
        UserError: a value does not fit.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    for name in (*above_zero, *any_size):
        value = getattr(config, name)
        if value is None and defaults[name] is None:
            continue
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        fits = number and (name in any_size or value > 0)
        _require(config, name, fits, "a number" if name in any_size else "a number above 0")


def _require_counts(config: Any, names: Sequence[str]) -> None:
    """Refuse what is no whole number of at least 1.

    Raises:
        UserError: a value does not fit.
    """
    for name in names:
        value = getattr(config, name)
        fits = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        _require(config, name, fits, "a whole number of at least 1")


def _require_choice(config: Any, name: str) -> None:
    """Refuse what is none of a field's choices.

    Raises:
        UserError: it is another value.
    """
    choices = get_args(get_type_hints(type(config))[name])
    _require(config, name, getattr(config, name) in choices, f"one of {choices}")


@dataclass(kw_only=True)
class DepthConfig:
    """How depth maps are read.

    Raises:
        UserError: a value is out of its range.
    """

    values: Literal["disparity", "metres", "millimetres", "sun_rgbd"] = "disparity"
    """What the files hold: disparity as it is; a depth that becomes disparity; or SUN RGB-D's pictures, whose
    bits are turned by three, in millimetres and cut at 8 m. Disparity and metres come in fractions; disparity
    in whole numbers needs a `divisor`."""
    baseline: float = 0.075
    """Distance of the sensor's two eyes in metres: 0.075 for Kinect, 0.095 for RealSense and Xtion."""
    focal_length: float | None = None
    """Of the sensor, in pixels; needed where depth becomes disparity."""
    divisor: float = 1.0
    """What disparity is divided by before it is normalised."""
    mean: float = 0.0418
    """Is subtracted."""
    std: float = 0.0295
    """Then divides."""

    def __post_init__(self) -> None:
        """Checks the values."""
        _require_choice(self, "values")
        _require_numbers(self, ("baseline", "focal_length", "divisor", "std"), ("mean",))


@dataclass(kw_only=True)
class ThermalConfig:
    """How thermal pictures are read.

    Raises:
        UserError: a value is out of its range.
    """

    lowest: float | None = None
    """Value that becomes 0; needed, with `highest`, for pictures of more than 8 bits."""
    highest: float | None = None
    """Value that becomes 1."""
    mean: float = 0.0
    """Is subtracted."""
    std: float = 1.0
    """Then divides."""

    def __post_init__(self) -> None:
        """Checks the values."""
        _require_numbers(self, ("std",), ("mean", "lowest", "highest"))
        together = (self.lowest is None) == (self.highest is None)
        _require(self, "lowest", together, f"it together with highest, which is {self.highest!r}")
        if self.lowest is not None and self.highest is not None:
            _require(self, "highest", self.lowest < self.highest, f"more than lowest, {self.lowest!r}")


@dataclass(kw_only=True)
class PointConfig:
    """How point clouds are read.

    Raises:
        UserError: a value is out of its range.
    """

    count: int = 8192
    """Most points of a cloud; of a larger one, so many are taken at equal distances in the file."""
    normalise: bool = True
    """Whether a cloud is moved to its centroid and its farthest point to distance 1, as the published
    examples are. The published loader does not do it."""

    def __post_init__(self) -> None:
        """Checks the values."""
        _require_counts(self, ("count",))


@dataclass(kw_only=True)
class ProcessorConfig:
    """Settings of all modalities.

    Raises:
        UserError: a value is out of its range.
    """

    image_size: int = 224
    """Height and width of images, video frames, depth maps and thermal pictures."""
    video_clips: int = 5
    """Clips of a video, three crops each."""
    audio_clips: int = 3
    """Clips of a sound."""
    clip_seconds: int = 2
    """Length of a clip."""
    resampler: Literal["sinc", "soxr"] = "sinc"
    """What brings sounds to 16 kHz: the published pipeline's filter, or soxr, whose steeper one leaves less
    in the highest mel bands."""
    shared_samples: bool = True
    """Whether overlapping clips of a sound share their samples, so that the mean which is taken off one clip
    is missing in the next, as in the published code. False gives every clip its own samples."""
    keep_end_token: bool = True
    """Whether texts of more than 75 tokens keep their end token; False is the code before November 2025,
    whose embeddings of such texts mean nothing."""
    imu_rate: float = 200.0
    """Samples per second of IMU files; others are interpolated to 200."""
    depth: DepthConfig = field(default_factory=DepthConfig)
    """Depth maps."""
    thermal: ThermalConfig = field(default_factory=ThermalConfig)
    """Thermal pictures."""
    point: PointConfig = field(default_factory=PointConfig)
    """Point clouds."""

    def __post_init__(self) -> None:
        """Checks the values."""
        _require_counts(self, ("image_size", "video_clips", "audio_clips", "clip_seconds"))
        _require_numbers(self, ("imu_rate",))
        _require_choice(self, "resampler")

    def save(self, folder: str | Path) -> None:
        """Write the file into a folder, which is made where it does not exist."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        text = json.dumps({"processor_class": "ImageBindProcessor", **dataclasses.asdict(self)}, indent=2)
        (Path(folder) / PROCESSOR_FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> "ProcessorConfig":
        """The settings in a folder.

        Raises:
            UserError: there are none, or they are damaged.
        """
        path = Path(folder) / PROCESSOR_FILE
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            content.pop("processor_class", None)
            parts = {"depth": DepthConfig, "thermal": ThermalConfig, "point": PointConfig}
            return cls(**{k: parts[k](**value) if k in parts else value for k, value in content.items()})
        except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(
                f"{str(path)!r} cannot be read ({error}). Use a folder that convert or save_pretrained wrote."
            ) from error
