"""When it pays to keep what the frozen lower layers compute: a function of numbers, and two measured rates.

Below the first adapted layer nothing changes from epoch to epoch. Keeping its input costs room on the disk
and the time to write it once and to read it in every later epoch; it saves the forward pass of the layers
below.
Nothing here knows a model or a trainer.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch

_PROBE_BYTES = 16 * 2**20
_PROBE_ROWS = 512
_PROBE_SECONDS = 0.1


@dataclass(frozen=True, kw_only=True)
class LowerLayerSaving:
    """What keeping the states costs and gives."""

    seconds_per_epoch: float
    """Saved in every epoch after the first; below 0 where reading takes longer than computing."""

    bytes_on_disk: int
    """Room for the states of one epoch's tokens."""

    seconds_to_fill: float
    """Spent on writing, once, in the first epoch."""

    def over(self, epochs: float) -> float:
        """Seconds saved by a run of so many epochs, the first of which fills the cache."""
        return self.seconds_per_epoch * max(epochs - 1.0, 0.0) - self.seconds_to_fill


def lower_layer_saving(
    *,
    tokens: int,
    hidden_size: int,
    layers_below: int,
    flops_per_layer: float,
    flops_per_second: float,
    bytes_per_second: float,
    bytes_per_value: int = 2,
) -> LowerLayerSaving:
    """Time and room that a cache of the lower layers' output takes and saves.

    Args:
        tokens: of one epoch, without padding.
        hidden_size: width of the states.
        layers_below: frozen layers below the first adapted one.
        flops_per_layer: of one layer's forward pass, per token (2 per weight).
        flops_per_second: that the device reaches in this work (peak times utilisation).
        bytes_per_second: at which the disk writes and reads.
        bytes_per_value: of the states: 2 in bf16 and fp16, 4 in fp32.
    """
    num_bytes = tokens * hidden_size * bytes_per_value
    transfer = num_bytes / bytes_per_second
    computing = tokens * layers_below * flops_per_layer / flops_per_second
    return LowerLayerSaving(
        seconds_per_epoch=computing - transfer, bytes_on_disk=num_bytes, seconds_to_fill=transfer
    )


def measure_flops_per_second(device: torch.device, dtype: torch.dtype, width: int) -> float:
    """FLOP/s that a matrix product of a layer's width reaches here, measured for a tenth of a second.

    Args:
        device: where to compute.
        dtype: of both factors.
        width: hidden size.
    """
    left = torch.ones(_PROBE_ROWS, width, device=device, dtype=dtype)
    right = torch.ones(width, width, device=device, dtype=dtype)
    (left @ right).sum().item()  # kernels are chosen in the first call
    rounds, start = 0, time.perf_counter()
    while time.perf_counter() - start < _PROBE_SECONDS:
        (left @ right)[0, 0].item()  # waits for the device
        rounds += 1
    return 2.0 * _PROBE_ROWS * width * width * rounds / (time.perf_counter() - start)


def measure_bytes_per_second(folder: Path) -> float:
    """Rate at which a folder's disk takes 16 MiB, up to the moment when they are safe.

    Reading is taken to be as fast; from the memory, where the system keeps files, it is faster.
    """
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / "speed.probe"
    start = time.perf_counter()
    with probe.open("wb") as file:
        file.write(bytes(_PROBE_BYTES))
        file.flush()
        os.fsync(file.fileno())
    seconds = time.perf_counter() - start
    probe.unlink()
    return _PROBE_BYTES / max(seconds, 1e-6)
