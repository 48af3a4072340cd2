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
    ],
)
def test_names_as_torch_gives_them(torch_name, name):
    assert known_gpu(torch_name).name == name


def test_other_gpus_are_not_guessed():
    assert known_gpu("AMD Instinct MI300X") is None


def test_this_processor_is_measured():
    found = measured_cpu(seconds=0.01)
    assert found.fp32_flops > 1e8
    assert found.half_flops > 1e7
    assert found.bandwidth > 1e8
    assert found.memory_bytes > 1e9
