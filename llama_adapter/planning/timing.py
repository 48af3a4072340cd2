"""Time of an epoch on a device, from counted work and stated rates.

A roofline: the slowest of computing (FLOPs at the stated share of the peak), reading the weights in every
pass, and gathering shards from the other devices counts, as if the others hid behind it. No latency, no
data loading, no evaluation. It knows no model.
"""

from dataclasses import dataclass

from llama_adapter.hardware import Device


@dataclass(frozen=True, kw_only=True)
class EpochWork:
    """What one device does in an epoch."""

    flops: float
    """Of one device, recomputation included."""
    passes: int
    """Times that all weights are read: forward and backward of every micro-batch."""
    weight_bytes: int
    """Read in one pass."""
    dequantised_bytes: int = 0
    """Written and read again in one pass by a quantised base."""
    gathered_bytes: int = 0
    """Received from other devices in one pass (FSDP2)."""


def peak_rate(device: Device, is_half: bool, tf32: bool = False) -> float:
    """Peak FLOP/s in the precision of a run."""
    if is_half:
        return device.half_flops
    return device.tf32_flops if tf32 else device.fp32_flops


def epoch_seconds(work: EpochWork, device: Device, rate: float, mfu: float) -> float:
    """Seconds of an epoch.

    Args:
        work: of one device.
        device: whose memory and links are used.
        rate: its peak FLOP/s.
        mfu: share of the rate that is reached.
    """
    # turning weights back is work of its own before each product; reading them hides behind the product
    extra = work.passes * 2 * work.dequantised_bytes / device.bandwidth
    computing = work.flops / (rate * mfu)
    reading = work.passes * work.weight_bytes / device.bandwidth
    gathering = work.passes * work.gathered_bytes / device.link
    return max(computing, reading, gathering) + extra
