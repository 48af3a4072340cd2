"""Videos -> clips of two frames, three crops each.

Unusual: two passes over a file. The first counts packets without decoding; the second keeps the frames that
are wanted and no others. Frames are chosen by number, at the mean rate.
Source: docs/sources/imagebind-preprocessing.md#video.

Dimensions: K clips, H height, W width of a frame, V views (crops of all clips), S height and width of a view.
"""

import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from imagebind_llm.processing.clip_times import clip_times
from imagebind_llm.processing.config import ProcessorConfig
from imagebind_llm.processing.pictures import CLIP_MEAN, CLIP_STD
from llama_adapter.errors import UserError
from llama_adapter.lazy import needed

VIDEO_TYPES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")
CROPS = 3
FRAMES = 2


def load_video(path: str | Path, config: ProcessorConfig) -> Float[Tensor, "V 3 2 S S"]:
    """A video file as the vision tower takes it.

    Raises:
        UserError: the file is missing, damaged, or has no pictures.
    """
    with _opened(path) as stream:
        rate = stream.average_rate or stream.guessed_rate
        count = sum(1 for packet in stream.container.demux(stream) if packet.size)
    if not count or not rate:
        raise UserError(f"{str(path)!r} has a video stream without pictures. Replace the file.")
    chosen = clip_frames(count, float(rate), config)
    frames = _decode(path, {index for pair in chosen for index in pair})
    if not frames:
        raise UserError(f"{str(path)!r} has no picture that can be decoded. Replace the file.")
    last = max(frames)  # a file that is cut off: the last picture stands in for those behind it
    clips = torch.stack([torch.stack([frames.get(index, frames[last]) for index in pair]) for pair in chosen])
    return video_input(clips, config.image_size)


def clip_frames(count: int, rate: float, config: ProcessorConfig) -> list[tuple[int, int]]:
    """Numbers of the first and last frame of every clip.

    Args:
        count: frames of the video.
        rate: frames per second.
        config: the settings of the processor.
    """
    chosen = []
    duration = Fraction(count / rate)  # through a float, as in the published code
    for start, end in clip_times(duration, config.video_clips, config.clip_seconds):
        first = min(math.ceil(rate * float(start)), count - 1)
        last = min(math.ceil(rate * float(end)), count) - 1
        chosen.append((first, max(first, last)))
    return chosen


def video_input(clips: UInt8[Tensor, "K 2 H W 3"], size: int) -> Float[Tensor, "V 3 2 S S"]:
    """Frames as the vision tower takes them: scaled, normalised, and cropped at both ends and in the middle.

    Args:
        clips: two frames of every clip.
        size: height and width of a view.
    """
    frames = clips.flatten(0, 1).permute(0, 3, 1, 2).float() / 255
    height, width = frames.shape[-2:]
    short = min(height, width)
    scaled = [size if side == short else math.floor(side / short * size) for side in (height, width)]
    frames = functional.interpolate(frames, size=scaled, mode="bilinear", align_corners=False)
    frames = (frames - torch.tensor(CLIP_MEAN).view(3, 1, 1)) / torch.tensor(CLIP_STD).view(3, 1, 1)
    frames = frames.unflatten(0, clips.shape[:2]).transpose(1, 2)
    axis = 3 if height > width else 4
    free = frames.shape[axis] - size
    crops = [frames.narrow(axis, offset, size) for offset in (0, math.ceil(free / 2), free)]
    return torch.stack(crops, dim=1).flatten(0, 1)


def _decode(path: str | Path, wanted: Collection[int]) -> Mapping[int, UInt8[Tensor, "H W 3"]]:
    """The wanted frames by number, and the last one that could be decoded."""
    frames: dict[int, Tensor] = {}
    with _opened(path) as stream:
        number, picture = -1, None
        for number, picture in enumerate(stream.container.decode(stream)):
            if number in wanted:
                frames[number] = _pixels(picture)
            if number >= max(wanted):
                break
        if picture is not None and number not in frames:
            frames[number] = _pixels(picture)
    return frames


def _pixels(picture: Any) -> UInt8[Tensor, "H W 3"]:
    """The colours of a frame."""
    return torch.from_numpy(picture.to_ndarray(format="rgb24"))


@contextmanager
def _opened(path: str | Path) -> Iterator[Any]:
    """The first video stream of a file.

    Raises:
        UserError: there is none, or the file cannot be read.
    """
    av: Any = needed("av", "av", "Videos", "video")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                kinds = sorted({stream.type for stream in container.streams})
                raise UserError(
                    f"{str(path)!r} has no video stream, only {kinds}. Use a video, or the modality audio."
                )
            yield container.streams.video[0]
    except av.error.FFmpegError as error:
        raise UserError(f"{str(path)!r} cannot be read as a video: {error}. Replace the file.") from error
