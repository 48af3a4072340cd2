"""Frames of videos and of animated pictures: when each is shown, and the pixels of some of them.

Videos are read by PyAV, animated pictures (GIF, WebP, PNG) by Pillow, which knows more of them. Frames stand
as players show them: turned and mirrored as the file says. Which frames a model is shown is not known here.

Dimensions: H height, W width of a frame.
"""

import struct
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from imagebind_llm.processing.pictures import PICTURE_TYPES
from llama_adapter.data.images import ANIMATED, check_size, open_image, picture_format
from llama_adapter.errors import UserError
from llama_adapter.file_formats.damage import decoding
from llama_adapter.lazy import needed

_UNEVEN = 0.25
"""Of the mean distance of two frames: nearer to its place in an even row than this is a rounded time."""
_MILLISECONDS = 100
"""That players show a frame of an animated picture for which no time is given."""
_MATRIX, _UNIT = struct.Struct("=9i"), 1 << 16
_SLANT = 0.02
"""Least part of a unit that says a picture is turned by other than quarters."""


@dataclass(frozen=True)
class Timeline:
    """When the frames of a video are shown."""

    times: tuple[Fraction, ...]
    """Seconds since the first frame, ascending; at least one."""
    rate: float
    """Mean frames per second."""
    last: Fraction
    """Seconds that the last frame is shown."""

    @property
    def duration(self) -> Fraction:
        """Seconds from the first frame's beginning to the last one's end."""
        return self.times[-1] + self.last

    @property
    def even(self) -> bool:
        """Whether the frames stand at equal distances."""
        off = (abs(float(time) * self.rate - number) for number, time in enumerate(self.times))
        return max(off) < _UNEVEN


class Frames(ABC):
    """A file whose frames can be numbered and decoded."""

    def __init__(self, path: str | Path) -> None:
        self.path = path

    @abstractmethod
    def timeline(self) -> Timeline:
        """When its frames are shown."""

    @abstractmethod
    def decode(self, wanted: Collection[int]) -> dict[int, UInt8[Tensor, "H W 3"]]:
        """The wanted frames by number, of those that can be decoded; with the last one before an end."""


def open_frames(path: str | Path) -> Frames:
    """The frames of a video or of an animated picture."""
    return PictureFrames(path) if picture_format(path) in ANIMATED else VideoFrames(path)


def shows_film(path: str | Path) -> bool:
    """Whether a file is a video or an animated picture, and no still; by its content, for names mislead."""
    known = picture_format(path)
    if known in ANIMATED:
        with open_image(path) as picture:
            return bool(getattr(picture, "is_animated", False))
    return known in ("", "MPEG", "FLI") and Path(path).suffix.lower() not in PICTURE_TYPES


class PictureFrames(Frames):
    """Those of an animated picture."""

    def timeline(self) -> Timeline:
        """See ``Frames``."""
        seconds = []
        with open_image(self.path) as picture:
            for number in range(getattr(picture, "n_frames", 1)):
                picture.seek(number)
                picture.load()  # before that some formats tell the time of the frame before
                seconds.append(Fraction(picture.info.get("duration") or _MILLISECONDS) / 1000)
        times = tuple(accumulate(seconds[:-1], initial=Fraction(0)))
        return Timeline(times, float(len(times) / sum(seconds)), seconds[-1])

    def decode(self, wanted: Collection[int]) -> dict[int, UInt8[Tensor, "H W 3"]]:
        """See ``Frames``."""
        frames = {}
        with open_image(self.path) as picture:
            for number in sorted(wanted):
                picture.seek(number)
                frames[number] = torch.from_numpy(np.asarray(picture.convert("RGB")).copy())
        return frames


class VideoFrames(Frames):
    """Those of the best video stream of a file."""

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self._stamps: list[int] = []
        self._stream: int | None = None

    def timeline(self) -> Timeline:
        """See ``Frames``.

        Raises:
            UserError: there are none.
        """
        with _opened(self.path) as stream:
            streams = [one for one in stream.container.streams.video if not _is_cover(one)]
            shown: dict[int, list[tuple[int | None, int]]] = {one.index: [] for one in streams}
            for packet in stream.container.demux(*streams):
                if packet.size and not packet.is_discard:
                    shown[packet.stream.index].append((packet.pts, packet.duration or 0))
            if len(shown[stream.index]) < 2:  # a cover that is not called one
                stream = max(streams, key=lambda one: len(shown[one.index]))
            self._stream = stream.index
            rate = Fraction(stream.average_rate or stream.guessed_rate or 0)
            return self._timeline(shown[stream.index], rate, Fraction(stream.time_base or 0))

    def _timeline(self, shown: list[tuple[int | None, int]], rate: Fraction, base: Fraction) -> Timeline:
        """Of packets by their stamps and durations, which count units of ``base`` seconds.

        Raises:
            UserError: there are none.
        """
        if not shown or not (rate or base):
            raise UserError(f"{str(self.path)!r} has a video stream without pictures. Replace the file.")
        lasting = {stamp: duration for stamp, duration in shown if stamp is not None}
        if len(lasting) < len(shown) or not base:  # without times, as in streams of no container
            rate = rate or 1 / base
            return Timeline(tuple(number / rate for number in range(len(shown))), float(rate), 1 / rate)
        self._stamps = sorted(lasting)
        times = tuple((stamp - self._stamps[0]) * base for stamp in self._stamps)
        rate = rate or (len(times) / times[-1] if times[-1] else 1 / base)
        return Timeline(times, float(rate), lasting[self._stamps[-1]] * base or 1 / rate)

    def decode(self, wanted: Collection[int]) -> dict[int, UInt8[Tensor, "H W 3"]]:
        """See ``Frames``."""
        numbers = {stamp: number for number, stamp in enumerate(self._stamps)}
        frames: dict[int, Tensor] = {}
        number, frame = -1, None
        with _opened(self.path, self._stream) as stream:
            for count, frame in enumerate(stream.container.decode(stream)):
                number = numbers.get(frame.pts, count)
                if number in wanted:
                    frames[number] = _pixels(frame, self.path)
                if number >= max(wanted):
                    break
            if frame is not None and number not in frames:
                frames[number] = _pixels(frame, self.path)
        return frames


def _pixels(frame: Any, path: str | Path) -> UInt8[Tensor, "H W 3"]:
    """The colours of a frame as players show it.

    Raises:
        UserError: it is turned by other than quarters.
    """
    check_size(path, frame.width, frame.height)
    pixels = torch.from_numpy(frame.to_ndarray(format="rgb24"))
    matrix = next((data for data in frame.side_data if data.type.name == "DISPLAYMATRIX"), None)
    if matrix is None:
        return pixels
    right_x, right_y, _, down_x, down_y, *_ = (value / _UNIT for value in _MATRIX.unpack(bytes(matrix)))
    if min(abs(right_x), abs(right_y)) > _SLANT:
        raise UserError(
            f"{str(path)!r} is shown turned by {frame.rotation} degrees. Make it again, turned by quarters."
        )
    if abs(right_x) < abs(right_y):
        pixels, right_x, down_y = pixels.transpose(0, 1), down_x, right_y
    return pixels.flip([axis for axis, sign in enumerate((down_y, right_x)) if sign < 0])


@contextmanager
def _opened(path: str | Path, number: int | None = None) -> Iterator[Any]:
    """A video stream of a file; the best one where none is named.

    Raises:
        UserError: there is none, or the file cannot be read.
    """
    av: Any = needed("av", "av", "Videos", "video")
    with decoding(path, "a video"), av.open(str(path)) as container:
        stream = container.streams.best("video") if number is None else container.streams[number]
        if stream is None:
            kinds = sorted({stream.type for stream in container.streams})
            raise UserError(
                f"{str(path)!r} has no video stream, only {kinds}. Use a video, or the modality audio."
            )
        if _is_cover(stream):
            raise UserError(f"{str(path)!r} has a cover, but no video. Use a video, or the modality audio.")
        yield stream


def _is_cover(stream: Any) -> bool:
    """Whether a stream is a picture that belongs to a sound or a film."""
    return bool(stream.disposition & needed("av", "av").stream.Disposition.attached_pic)
