"""Videos -> clips of two frames, three crops each.

Unusual: two passes over a file. The first notes when frames are shown, without decoding; the second keeps the
frames that are wanted and no others. Frames at equal distances are chosen by number at the mean rate, as
published; others by the time at which they are shown.
Source: docs/sources/imagebind-preprocessing.md#video.

Dimensions: K clips, H height, W width of a frame, V views (crops of all clips), S height and width of a view.
"""

import bisect
import math
from fractions import Fraction
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from imagebind_llm.processing.clip_times import clip_times
from imagebind_llm.processing.config import ProcessorConfig
from imagebind_llm.processing.frames import Timeline, open_frames
from imagebind_llm.processing.pictures import CLIP_MEAN, CLIP_STD
from llama_adapter.data.images import check_size
from llama_adapter.errors import UserError

CROPS = 3
FRAMES = 2


def load_video(path: str | Path, config: ProcessorConfig) -> Float[Tensor, "V 3 2 S S"]:
    """A video file, or an animated picture, as the vision tower takes it.

    Raises:
        UserError: the file is missing, damaged, or has no pictures.
    """
    video = open_frames(path)
    timeline = video.timeline()
    if timeline.even:
        chosen = clip_frames(len(timeline.times), timeline.rate, config)
    else:
        chosen = clip_frames_at(timeline, config)
    frames = video.decode({index for pair in chosen for index in pair})
    if not frames:
        raise UserError(f"{str(path)!r} has no picture that can be decoded. Replace the file.")
    numbers = sorted(frames)  # of a file that is cut off the nearest picture before stands in
    found = {n: frames[numbers[max(bisect.bisect(numbers, n) - 1, 0)]] for pair in chosen for n in pair}
    if len({frame.shape for frame in found.values()}) > 1:
        raise UserError(f"{str(path)!r} changes the size of its pictures. Make it again in one size.")
    height, width = found[chosen[0][0]].shape[:2]
    check_size(path, width, height)
    clips = torch.stack([torch.stack([found[number] for number in pair]) for pair in chosen])
    return video_input(clips, config.image_size)


def clip_frames(count: int, rate: float, config: ProcessorConfig) -> list[tuple[int, int]]:
    """Numbers of the first and last frame of every clip, of frames at equal distances.

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


def clip_frames_at(timeline: Timeline, config: ProcessorConfig) -> list[tuple[int, int]]:
    """Numbers of the first and last frame that begin in every clip; where none does, of the one then shown.

    Args:
        timeline: when the frames are shown.
        config: the settings of the processor.
    """
    times = timeline.times
    chosen = []
    for start, end in clip_times(timeline.duration, config.video_clips, config.clip_seconds):
        last = max(bisect.bisect_left(times, end) - 1, 0)
        chosen.append((min(bisect.bisect_left(times, start), last), last))
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
