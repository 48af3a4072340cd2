"""Settings of the processor; the defaults are the published preprocessing.

Source: docs/sources/imagebind-preprocessing.md. Depth, heat and IMU have no published loader: the defaults
are what users found to
reproduce the published results.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from llama_adapter.errors import UserError

PROCESSOR_FILE = "preprocessor_config.json"


@dataclass(kw_only=True)
class DepthConfig:
    """How depth maps are read."""

    values: Literal["disparity", "metres", "millimetres", "sun_rgbd"] = "disparity"
    """What the files hold: disparity as it is; a depth that becomes disparity; or SUN RGB-D's pictures, whose
    bits are turned by three, in millimetres and cut at 8 m."""
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


@dataclass(kw_only=True)
class ThermalConfig:
    """How thermal pictures are read."""

    lowest: float | None = None
    """Value that becomes 0; needed, with `highest`, for pictures of more than 8 bits."""
    highest: float | None = None
    """Value that becomes 1."""
    mean: float = 0.0
    """Is subtracted."""
    std: float = 1.0
    """Then divides."""


@dataclass(kw_only=True)
class PointConfig:
    """How point clouds are read."""

    count: int = 8192
    """Most points of a cloud; of a larger one, so many are taken at equal distances in the file."""
    normalise: bool = True
    """Whether a cloud is moved to its centroid and its farthest point to distance 1, as the published
    examples are. The published loader does not do it."""


@dataclass(kw_only=True)
class ProcessorConfig:
    """Settings of all modalities."""

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
        except (OSError, ValueError, TypeError) as error:
            raise UserError(
                f"{str(path)!r} cannot be read ({error}). Use a folder that convert or save_pretrained wrote."
            ) from error
