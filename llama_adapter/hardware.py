"""What devices can do: peak rates, memory and links of GPUs from their makers' data sheets, and this CPU's.

Unusual: rates are dense ones; data sheets print those with 2:4 sparsity in larger letters, twice as high. A
16-bit rate is that with sums in fp32, which is what training uses (GeForce cards do half of their fp16 rate
then). A CPU has no such sheet, so its rates are measured, in about a second. It knows no model.
"""

import functools
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil
import torch

from llama_adapter.errors import UserError

GIB = 2**30

_NVLINK_2, _NVLINK_3, _NVLINK_4, _PCIE_4, _PCIE_5, _PCIE_3 = 150e9, 300e9, 450e9, 32e9, 64e9, 16e9

_OTHER_MODELS = {"Ti", "SUPER", "Laptop", "D", "NVL", "MIG", "Max"}
"""Words in a name that make it another model, or a part of one, than the name without them."""

CPU = "cpu"
"""Name of the device that is measured."""


@dataclass(frozen=True, kw_only=True)
class Device:
    """One accelerator."""

    name: str
    """What it is called here, for example ``a100-80gb``."""
    pieces: tuple[str, ...]
    """Words that all stand in the name torch gives it."""
    half_flops: float
    """Peak FLOP/s of matrix products in bf16 (fp16 where there is no bf16), dense, sums in fp32."""
    tf32_flops: float
    """The same in TF32; where there is none, as in fp32."""
    fp32_flops: float
    """Peak FLOP/s in fp32, which torch uses unless TF32 was asked for."""
    memory_gib: float
    """Memory in GiB that the driver reports; error correction may take a part of the data sheet's."""
    bandwidth: float
    """Bytes/s between memory and processor."""
    link: float
    """Bytes/s to other devices of the same machine, in one direction."""

    @property
    def memory_bytes(self) -> int:
        """Memory in bytes."""
        return int(self.memory_gib * GIB)


def _gpu(
    name: str, pieces: str, teraflops: tuple[float, float, float], memory: tuple[float, float], link: float
) -> Device:
    """A row of the table: TFLOP/s (half, TF32, fp32), memory (GiB, GB/s), link (bytes/s)."""
    half, tf32, fp32 = (1e12 * rate for rate in teraflops)
    return Device(
        name=name,
        pieces=tuple(pieces.split("+")),
        half_flops=half,
        tf32_flops=tf32,
        fp32_flops=fp32,
        memory_gib=memory[0],
        bandwidth=memory[1] * 1e9,
        link=link,
    )


GPUS = (
    _gpu("h200", "H200", (989, 494, 67), (140.4, 4800), _NVLINK_4),
    _gpu("h100-pcie", "H100+PCIe", (756, 378, 51), (79.6, 2000), _PCIE_5),
    _gpu("h100", "H100", (989, 494, 67), (79.6, 3350), _NVLINK_4),
    _gpu("a100-80gb", "A100+80GB", (312, 156, 19.5), (80, 2039), _NVLINK_3),
    _gpu("a100-40gb", "A100+40GB", (312, 156, 19.5), (40, 1555), _NVLINK_3),
    _gpu("a10g", "A10G", (70, 35, 35), (22.5, 600), _PCIE_4),
    _gpu("a10", "A10", (125, 62.5, 31.2), (22.5, 600), _PCIE_4),
    _gpu("l40s", "L40S", (362, 183, 91.6), (45, 864), _PCIE_4),
    _gpu("l40", "L40", (181, 90.5, 90.5), (45, 864), _PCIE_4),
    _gpu("l4", "L4", (121, 60, 30.3), (22.5, 300), _PCIE_4),
    _gpu("rtx4090", "4090", (165, 82.6, 82.6), (24, 1008), _PCIE_4),
    _gpu("rtx3090", "3090", (71, 35.6, 35.6), (24, 936), _PCIE_4),
    _gpu("v100", "V100+SXM2+32GB", (125, 15.7, 15.7), (32, 900), _NVLINK_2),
    _gpu("t4", "T4", (65, 8.1, 8.1), (15, 320), _PCIE_3),
)
"""Known GPUs. Of several that fit a name the first counts, so special ones stand before general ones."""


def known_gpu(torch_name: str) -> Device | None:
    """The GPU that torch calls by this name; None where it is not in the table."""
    words = set(re.findall(r"[A-Za-z0-9]+", torch_name))
    if words & _OTHER_MODELS:
        return None
    return next((gpu for gpu in GPUS if words.issuperset(gpu.pieces)), None)


def find_device(name: str) -> Device:
    """A device by the name a user gives it: ``A100-80GB``, ``a100 80``, ``RTX 4090``, ``4090``, ``cpu``.

    Raises:
        UserError: it is not known; the message lists the names.
    """
    wanted = _plain(name)
    if wanted == CPU:
        return measured_cpu()
    fitting = [gpu for gpu in GPUS if _plain(gpu.name) == wanted]
    if not fitting:
        names = ", ".join([*(gpu.name for gpu in GPUS), CPU])
        raise UserError(f"The GPU {name!r} is not known. Use one of {names}.")
    return fitting[0]


def _plain(name: str) -> str:
    """A name without case, separators, the maker's prefixes and the unit of its memory."""
    return re.sub(r"nvidia|geforce|rtx|gb|[^a-z0-9]", "", name.lower())


@functools.cache
def measured_cpu(seconds: float = 0.3) -> Device:
    """This machine's processor, its rates measured with torch as it is set up (threads included).

    Args:
        seconds: time for each of three measurements.
    """
    return Device(
        name=CPU,
        pieces=(),
        half_flops=_matmul_rate(torch.bfloat16, seconds),
        tf32_flops=(full := _matmul_rate(torch.float32, seconds)),
        fp32_flops=full,
        memory_gib=psutil.virtual_memory().total / GIB,
        bandwidth=_copy_rate(seconds),
        link=_PCIE_4,
    )


def _matmul_rate(dtype: torch.dtype, seconds: float, size: int = 1024) -> float:
    """FLOP/s of a square matrix product, the best of several."""
    left, right = (torch.randn(size, size).to(dtype) for _ in range(2))
    with torch.no_grad():
        return 2 * size**3 / _best_time(lambda: left @ right, seconds)


def _copy_rate(seconds: float, size: int = 2**26) -> float:
    """Bytes/s of a copy, read and written bytes together."""
    source = torch.ones(size // 4)
    target = torch.empty_like(source)
    return 2 * size / _best_time(lambda: target.copy_(source), seconds)


def _best_time(run: Callable[[], object], seconds: float) -> float:
    """The shortest of the times that fit into ``seconds``, at least three, after one to warm up."""
    run()
    times = list[float]()
    end = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)
