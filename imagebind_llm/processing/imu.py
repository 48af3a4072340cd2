"""IMU recordings: three axes of an accelerometer, then three of a gyroscope.

Unusual: a recording of more than ten seconds becomes several clips, whose embeddings the model averages; what
is left at the end is not used. Nothing official exists for files; no normalisation is published.
Source: docs/sources/imagebind-preprocessing.md#depth-thermal-imu.

Dimensions: C channels, N samples, K clips.
"""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from imagebind_llm.processing.arrays import read_array
from llama_adapter.errors import UserError
from llama_adapter.file_formats.damage import decoding

CHANNELS, LENGTH, RATE = 6, 2000, 200.0
_TABLES = (".csv", ".tsv", ".txt")
_MOST_SAMPLES = 100_000_000
"""At 200 per second: half a million seconds."""


def load_imu(path: str | Path, rate: float) -> Float[Tensor, "K C 2000"]:
    """A table or an array file as the IMU tower takes it, one clip per ten seconds.

    Args:
        path: samples in rows or columns; a table (.csv, .tsv, .txt) may have a line of names at its top.
        rate: samples per second of the file.

    Raises:
        UserError: the file is damaged, has other channels, NaN, or less than ten seconds.
    """
    path = Path(path)
    values = _read_table(path) if path.suffix.lower() in _TABLES else read_array(path)
    if values.ndim == 3 and len(values) == 1:
        values = values[0]
    if values.ndim != 2 or CHANNELS not in values.shape:
        raise UserError(f"{str(path)!r} has the shape {values.shape}. Use {CHANNELS} columns or rows.")
    samples = (values if values.shape[0] == CHANNELS else values.T).astype(np.float32)
    if samples.shape[1] * RATE > _MOST_SAMPLES * rate:
        raise UserError(
            f"{str(path)!r} has {samples.shape[1]:,} samples, which imu_rate {rate:g} spreads over "
            f"{samples.shape[1] / rate:,.0f} s. Set imu_rate to the samples per second of the file."
        )
    if not np.isfinite(samples).all():
        raise UserError(f"{str(path)!r} holds NaN or infinite values. Fill the gaps, or replace the file.")
    samples = _at_rate(samples, rate)
    clips = samples.shape[1] // LENGTH
    if clips == 0:
        raise UserError(
            f"{str(path)!r} has {samples.shape[1]} samples at {RATE:g} per second. "
            f"Use at least {LENGTH}, and set imu_rate if the file has another rate."
        )
    kept = torch.from_numpy(np.ascontiguousarray(samples[:, : clips * LENGTH]))
    return kept.unflatten(1, (clips, LENGTH)).transpose(0, 1).contiguous()


def _read_table(path: Path) -> Float[np.ndarray, "..."]:
    """Numbers between commas, tabs, semicolons or spaces, with or without a line of names."""
    with decoding(path, "a table of numbers", "Use one row per sample."):
        lines = [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        rows = [line.replace(",", " ").replace(";", " ").split() for line in lines]
        body = rows if rows and all(map(_is_number, rows[0])) else rows[1:]
        return np.array(body, dtype=np.float32)


def _is_number(text: str) -> bool:
    """Whether a word is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def _at_rate(samples: Float[np.ndarray, "C N"], rate: float) -> Float[np.ndarray, "C _"]:
    """Samples at 200 per second, between those of the file by straight lines."""
    if rate == RATE:
        return samples
    count = samples.shape[1]
    wanted = np.arange(int(count * RATE / rate)) * rate / RATE
    return np.stack([np.interp(wanted, np.arange(count), row) for row in samples]).astype(np.float32)
