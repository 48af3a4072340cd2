"""Devices by name, and a processor that is measured."""

import pytest

from llama_adapter.errors import UserError
from llama_adapter.hardware import GPUS, find_device, known_gpu, measured_cpu


@pytest.mark.parametrize("gpu", GPUS, ids=lambda gpu: gpu.name)
def test_every_gpu_is_found_and_plausible(gpu):
    assert find_device(gpu.name) is gpu
    assert 1e13 < gpu.half_flops < 1e15
    assert gpu.fp32_flops <= gpu.tf32_flops <= gpu.half_flops
    assert 10 < gpu.memory_gib < 200
    assert 1e11 < gpu.bandwidth < 1e13
    assert gpu.link < gpu.bandwidth


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("A100-80GB", "a100-80gb"),
        ("a100 40", "a100-40gb"),
        ("RTX 4090", "rtx4090"),
        ("3090", "rtx3090"),
        ("NVIDIA H100", "h100"),
    ],
)
def test_names_as_people_write_them(typed, name):
    assert find_device(typed).name == name


@pytest.mark.parametrize("name", ["a100", "mi300", ""])
def test_an_unknown_gpu_lists_the_names(name):
    with pytest.raises(UserError, match=rf"The GPU '{name}' is not known. Use one of .*h100.*rtx4090.*cpu"):
        find_device(name)


@pytest.mark.parametrize(
    ("torch_name", "name"),
    [
        ("NVIDIA A100-SXM4-80GB", "a100-80gb"),
        ("NVIDIA A100 80GB PCIe", "a100-80gb"),
        ("NVIDIA A100-SXM4-40GB", "a100-40gb"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA A10G", "a10g"),
        ("NVIDIA A10", "a10"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA L4", "l4"),
        ("NVIDIA GeForce RTX 3090", "rtx3090"),
        ("NVIDIA GeForce RTX 4090", "rtx4090"),
        ("NVIDIA A100-PCIE-40GB", "a100-40gb"),
        ("NVIDIA L40", "l40"),
        ("Tesla T4", "t4"),
        ("Tesla V100-SXM2-32GB", "v100"),
    ],
)
def test_names_as_torch_gives_them(torch_name, name):
    assert known_gpu(torch_name).name == name


@pytest.mark.parametrize(
    "torch_name",
    [
        "AMD Instinct MI300X",
        "NVIDIA RTX A1000 Laptop GPU",
        "NVIDIA GH200 480GB",
        "NVIDIA H100 NVL",
        "NVIDIA A100-SXM4-80GB MIG 1g.10gb",
        "NVIDIA T400 4GB",
        "Tesla V100-SXM2-16GB",
        "Tesla V100-PCIE-32GB",
        "NVIDIA GeForce RTX 3090 Ti",
        "NVIDIA GeForce RTX 4090 D",
    ],
)
def test_other_gpus_are_not_guessed(torch_name):
    assert known_gpu(torch_name) is None


def chip(*, units, clock, half, tf32, fp32, bus, pin):
    """(FLOP/s in 16 bits, TF32 and fp32; bytes/s): what units do per clock, and what a memory bus carries.

    Args:
        units: streaming multiprocessors that are switched on.
        clock: boost clock in GHz: one number, or that of tensor cores and that of the others.
        half: FLOP that a multiprocessor's tensor cores do per clock in 16 bits, dense, with sums in fp32.
        tf32: the same in TF32; 0 where there is none.
        fp32: FLOP that its other cores do per clock.
        bus: width of the memory bus in bits.
        pin: Gbit/s on each of its pins.
    """
    tensor, plain = clock if isinstance(clock, tuple) else (clock, clock)
    full = units * plain * fp32 * 1e9
    return units * tensor * half * 1e9, units * tensor * tf32 * 1e9 or full, full, bus * pin * 1e9 / 8


CHIPS = {
    "h200": chip(units=132, clock=(1.83, 1.98), half=4096, tf32=2048, fp32=256, bus=6144, pin=6.25),
    "h100": chip(units=132, clock=(1.83, 1.98), half=4096, tf32=2048, fp32=256, bus=5120, pin=5.23),
    "h100-pcie": chip(units=114, clock=(1.62, 1.755), half=4096, tf32=2048, fp32=256, bus=5120, pin=3.19),
    "a100-80gb": chip(units=108, clock=1.41, half=2048, tf32=1024, fp32=128, bus=5120, pin=3.186),
    "a100-40gb": chip(units=108, clock=1.41, half=2048, tf32=1024, fp32=128, bus=5120, pin=2.43),
    "a10g": chip(units=80, clock=1.71, half=512, tf32=256, fp32=256, bus=384, pin=12.5),
    "a10": chip(units=72, clock=1.695, half=1024, tf32=512, fp32=256, bus=384, pin=12.5),
    "l40s": chip(units=142, clock=2.52, half=1024, tf32=512, fp32=256, bus=384, pin=18),
    "l40": chip(units=142, clock=2.49, half=512, tf32=256, fp32=256, bus=384, pin=18),
    "l4": chip(units=58, clock=2.04, half=1024, tf32=512, fp32=256, bus=192, pin=12.5),
    "rtx4090": chip(units=128, clock=2.52, half=512, tf32=256, fp32=256, bus=384, pin=21),
    "rtx3090": chip(units=82, clock=1.695, half=512, tf32=256, fp32=256, bus=384, pin=19.5),
    "v100": chip(units=80, clock=1.53, half=1024, tf32=0, fp32=128, bus=4096, pin=1.754),
    "t4": chip(units=40, clock=1.59, half=1024, tf32=0, fp32=128, bus=256, pin=10),
}
"""The rates again, from what the makers' papers say of the chips instead of their data sheets."""


@pytest.mark.parametrize("gpu", GPUS, ids=lambda gpu: gpu.name)
def test_rates_follow_from_units_and_clocks(gpu):
    stated = (gpu.half_flops, gpu.tf32_flops, gpu.fp32_flops, gpu.bandwidth)
    assert stated == pytest.approx(CHIPS[gpu.name], rel=0.025)


LINKS = {
    "NVLink 4": 18 * 25e9,
    "NVLink 3": 12 * 25e9,
    "NVLink 2": 6 * 25e9,
    **{f"PCIe {number}": 16 * rate * 1e9 / 8 * 128 / 130 for number, rate in ((3, 8), (4, 16), (5, 32))},
}
"""Bytes/s in one direction: links of 25 GB/s each; 16 lanes, 128 of 130 bits of each."""


@pytest.mark.parametrize("gpu", GPUS, ids=lambda gpu: gpu.name)
def test_links_are_those_of_the_board(gpu):
    board = {
        "h200": "NVLink 4",
        "h100": "NVLink 4",
        "h100-pcie": "PCIe 5",
        "v100": "NVLink 2",
        "t4": "PCIe 3",
    }
    kind = board.get(gpu.name, "NVLink 3" if gpu.name.startswith("a100") else "PCIe 4")
    assert gpu.link == pytest.approx(LINKS[kind], rel=0.02)


MEBIBYTES = {"h200": 143771, "h100": 81559, "h100-pcie": 81559, "a100-80gb": 81920, "a100-40gb": 40960}
MEBIBYTES |= {"a10g": 23028, "a10": 23028, "l40s": 46068, "l40": 46068, "l4": 23034, "rtx4090": 24564}
MEBIBYTES |= {"rtx3090": 24576, "v100": 32768, "t4": 15360}
"""What ``nvidia-smi`` lists as the total."""


@pytest.mark.parametrize("gpu", GPUS, ids=lambda gpu: gpu.name)
def test_memory_is_what_the_driver_lists(gpu):
    assert gpu.memory_gib == pytest.approx(MEBIBYTES[gpu.name] / 1024, rel=0.003)


def test_this_processor_is_measured():
    found = measured_cpu(seconds=0.01)
    assert found.fp32_flops > 1e8
    assert found.half_flops > 1e7
    assert found.bandwidth > 1e8
    assert found.memory_bytes > 1e9
