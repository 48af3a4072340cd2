"""Sounds -> log-mel spectrograms, as Kaldi makes them.

Unusual: overlapping clips share their samples, as in the published code, so that the mean which is taken off
one clip is missing in the next (``ProcessorConfig.shared_samples``). Samples stay within -1 and 1.
Source: docs/sources/imagebind-preprocessing.md#audio.

Dimensions: C channels, N samples, K clips, M mel bands, F frames.
"""

import functools
import warnings
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

from imagebind_llm.processing.clip_times import clip_times
from imagebind_llm.processing.config import ProcessorConfig
from imagebind_llm.processing.resampling import resample_sinc, resample_soxr
from llama_adapter.errors import UserError
from llama_adapter.file_formats.damage import decoding
from llama_adapter.lazy import needed

RATE = 16_000
_FRAME, _HOP, _FFT = 400, 160, 512
_BANDS, _FRAMES = 128, 204
_LOWEST, _HIGHEST = 20, 8000
_PREEMPHASIS = 0.97
_FLOOR = float(np.finfo(np.float32).eps)
_MEAN, _STD = -4.268, 9.138
_LOWEST_RATE, _HIGHEST_RATE = 1000, 1_000_000
_OVERDRIVEN = 16.0
"""Nothing that lies within -1 and 1 but for some overdriven peaks comes near it."""
_HEARD = 0.001
"""Of the loudest channel: 60 dB below it a channel holds noise at most."""


def load_audio(path: str | Path, config: ProcessorConfig) -> Float[Tensor, "K 1 M F"]:
    """A sound file as the audio tower takes it.

    Raises:
        UserError: the file is missing, damaged, no sound, silent or too short.
    """
    return audio_input(read_sound(path, resampler=config.resampler), config)


def read_sound(path: str | Path, rate: int = RATE, resampler: str = "sinc") -> Float[Tensor, "C N"]:
    """The samples of a sound file.

    The first channel is what models are shown, as published; where it is silent, the first one with sound.

    Args:
        path: any file that soundfile reads.
        rate: samples per second of the result.
        resampler: see ``ProcessorConfig``.

    Raises:
        UserError: the file is missing, damaged, no sound, silent or too short.
    """
    samples, given = _read(path)
    if not _LOWEST_RATE <= given <= _HIGHEST_RATE:
        raise UserError(
            f"{str(path)!r} says that it has {given:,} samples per second. Use {_LOWEST_RATE:,} to "
            f"{_HIGHEST_RATE:,}."
        )
    if not samples.isfinite().all():
        raise UserError(f"{str(path)!r} holds NaN or infinite samples. Replace the file.")
    if samples.numel() and (loudest := float(samples.abs().max())) > _OVERDRIVEN:
        raise UserError(
            f"{str(path)!r} holds samples up to {loudest:g}; those of sounds lie within -1 and 1. "
            "Divide them by their range, such as 32768."
        )
    if samples.shape[1]:
        samples = (resample_soxr if resampler == "soxr" else resample_sinc)(samples, given, rate)
    if samples.shape[1] * RATE < _FRAME * rate:
        raise UserError(
            f"{str(path)!r} has {samples.shape[1] / rate:.3f} s of sound. Use at least {_FRAME / RATE} s."
        )
    return _heard_first(samples, path)


def _read(path: str | Path) -> tuple[Float[Tensor, "C N"], int]:
    """Samples and their rate."""
    soundfile: Any = needed("soundfile", "soundfile", "Sounds", "audio")
    with decoding(path, "sound", "Use .wav, .flac, .ogg or .mp3."):
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return torch.from_numpy(samples).T, rate


def _heard_first(samples: Float[Tensor, "C N"], path: str | Path) -> Float[Tensor, "C N"]:
    """The channels from the first one on that is heard beside the loudest; silent ones stand behind.

    Raises:
        UserError: none is.
    """
    loudness = samples.std(dim=1)
    if not (samples != samples[:, :1]).any():
        raise UserError(f"{str(path)!r} is silent from start to end. Use a file with sound.")
    heard = loudness >= _HEARD * loudness.max()
    return samples.roll(-int(heard.int().argmax()), dims=0)


def audio_input(samples: Float[Tensor, "C N"], config: ProcessorConfig) -> Float[Tensor, "K 1 M F"]:
    """Normalised spectrograms of the clips of a sound at 16 kHz.

    Args:
        samples: all channels; the mean is taken over all of them, the spectrogram is the first one's.
        config: the settings of the processor.
    """
    recording = samples.clone()
    # through a float, as in the published code: some clips begin one sample earlier than exact numbers say
    duration = Fraction(recording.shape[1] / RATE)
    clips = []
    for start, end in clip_times(duration, config.audio_clips, config.clip_seconds):
        clip = recording[:, int(start * RATE) : int(end * RATE)]
        if not config.shared_samples:
            clip = clip.clone()
        clip -= clip.mean()
        clips.append(_padded(log_mel(clip[0].numpy())))
    values = torch.from_numpy(np.stack(clips)).unsqueeze(1)
    return (values - _MEAN) / _STD


def log_mel(samples: Float[np.ndarray, " N"]) -> Float[np.ndarray, "M F"]:
    """The log-mel spectrogram of complete frames of 25 ms, every 10 ms."""
    found: np.ndarray = spectrogram(
        samples,
        window_function(_FRAME, "hann", periodic=False),
        frame_length=_FRAME,
        hop_length=_HOP,
        fft_length=_FFT,
        power=2.0,
        center=False,
        preemphasis=_PREEMPHASIS,
        mel_filters=_mel_filters(),
        mel_floor=_FLOOR,
        log_mel="log",
        remove_dc_offset=True,
    )
    return found


def _padded(mel: Float[np.ndarray, "M _"]) -> Float[np.ndarray, "M F"]:
    """Zeros behind the last frame, or the first 204 frames; not yet normalised."""
    mel = mel[:, :_FRAMES]
    return np.pad(mel, ((0, 0), (0, _FRAMES - mel.shape[1]))).astype(np.float32)


@functools.cache
def _mel_filters() -> Float[np.ndarray, "_ M"]:
    """Kaldi's triangles. One of them is too narrow for any frequency, which transformers warns about."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="At least one mel filter has all zero values")
        filters: np.ndarray = mel_filter_bank(
            num_frequency_bins=_FFT // 2 + 1,
            num_mel_filters=_BANDS,
            min_frequency=_LOWEST,
            max_frequency=_HIGHEST,
            sampling_rate=RATE,
            norm=None,
            mel_scale="kaldi",
            triangularize_in_mel_space=True,
        )
    return filters
