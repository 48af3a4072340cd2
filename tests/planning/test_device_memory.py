"""Arithmetic from one step's tensors to a device."""

import pytest
import torch
from peft import LoraConfig, get_peft_model

from llama_adapter.hardware import find_device
from llama_adapter.planning.device_memory import (
    BUCKETS,
    GATHERED,
    MARGINS,
    device_memory,
    model_sizes,
    usable_bytes,
)
from llama_adapter.planning.step import StepCost
from llama_adapter.planning.timeline import ACTIVATIONS, CASTS, GRADIENTS, OPTIMIZER, WEIGHTS, WORKING, Peak
from tests.tiny import tiny_llama

H100 = find_device("h100")


@pytest.fixture(scope="module")
def model():
    base = tiny_llama().to(torch.bfloat16).requires_grad_(False)
    return get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj"]))


def cost(sizes):
    parts = {WEIGHTS: sizes.total, CASTS: 500, ACTIVATIONS: 10_000, GRADIENTS: 70, OPTIMIZER: 140}
    return StepCost(forward_flops=1, backward_flops=1, peak=Peak(parts, "backward", "op"), gradient_bytes=99)


def test_sizes_count_layers_and_frozen_linear_maps_only(model):
    sizes = model_sizes(model)
    assert sizes.total == sum(parameter.nbytes for parameter in model.parameters())
    assert sizes.outside_blocks == 2 * (2 * 259 * 32 + 32)  # bf16; embeddings, head, last norm
    per_layer = 32 * 32 * 2 + 16 * 32 * 2 + 3 * 32 * 48
    assert sizes.linear == 2 * 2 * per_layer
    assert sizes.largest_linear == 2 * 32 * 48
    assert sizes.linear_numel == 2 * per_layer
    assert sizes.largest_block > sizes.linear / 2


def test_quantised_weights_keep_their_scales(model):
    sizes = model_sizes(model)
    assert sizes.quantised("none") == sizes.linear
    assert sizes.quantised("int8") == sizes.linear_numel + 4 * 2 * (32 * 3 + 16 * 2 + 48 * 2)
    assert sizes.quantised("nf4") == int(sizes.linear_numel * (0.5 + (1 + 4 / 256) / 64))


def test_one_cpu_takes_the_tensors_and_nothing_else(model):
    sizes = model_sizes(model)
    parts = device_memory(cost(sizes), sizes, find_device("cpu"))
    assert parts == cost(sizes).peak.parts


def test_a_gpu_takes_its_context_and_fragmentation(model):
    sizes = model_sizes(model)
    parts = device_memory(cost(sizes), sizes, H100)
    assert parts[MARGINS] > 0.5 * 2**30
    assert usable_bytes(H100) < H100.memory_bytes


def test_ddp_adds_its_buckets_and_fsdp_shares(model):
    sizes = model_sizes(model)
    ddp = device_memory(cost(sizes), sizes, H100, "ddp", 4)
    assert ddp[WEIGHTS] == sizes.total
    assert ddp[BUCKETS] == 99
    sharded = device_memory(cost(sizes), sizes, H100, "fsdp2", 4)
    assert sharded[WEIGHTS] == -(-sizes.total // 4)
    assert sharded[OPTIMIZER] == 35
    assert sharded[ACTIVATIONS] == 10_000
    gradients = sum(weight.nbytes for weight in model.parameters() if weight.requires_grad) // 2  # two layers
    assert sharded[GATHERED] == 2 * sizes.largest_block + sizes.outside_blocks + gradients
    assert CASTS not in sharded


def test_sharded_weights_are_gathered_in_the_type_that_computes():
    base = tiny_llama()
    kept, mixed = model_sizes(base), model_sizes(base, torch.bfloat16)
    assert (kept.cast, mixed.cast) == (1, 0.5)
    whole = kept.largest_block + kept.outside_blocks
    assert kept.trained_at_once == whole
    plain, half = (device_memory(cost(sizes), sizes, H100, "fsdp2", 4)[GATHERED] for sizes in (kept, mixed))
    assert plain == 2 * kept.largest_block + kept.outside_blocks + whole
    assert half == (2 * kept.largest_block + kept.outside_blocks) // 2 + whole * 3 // 2


def test_a_quantised_base_is_smaller_but_turned_back_map_by_map(model):
    sizes = model_sizes(model)
    parts = device_memory(cost(sizes), sizes, H100, quantisation="nf4")
    assert parts[WEIGHTS] == sizes.total - sizes.linear + sizes.quantised("nf4")
    assert parts[WORKING] == 2 * sizes.largest_linear
    assert CASTS not in parts
