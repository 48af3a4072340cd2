"""What the method costs on a 7B LLaMA: forward FLOPs beside LoRA's, trainable values beside the published.

Models are on the meta device: shapes without memory.
"""

import sys

import peft
import pytest
import torch
from peft import get_peft_model
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from llama_adapter import ZeroInitConfig

HIDDEN, INNER, LAYERS, HEADS = 4096, 11008, 32, 32
BIASES = {"kind": "bias", "exclude": ["k_proj", "v_proj"]}


def llama_7b():
    config = LlamaConfig(
        vocab_size=32000,
        hidden_size=HIDDEN,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
    )
    with torch.device("meta"):
        return LlamaForCausalLM(config)


def forward_flops(model):
    ids = torch.zeros(4, 512, dtype=torch.long, device="meta")
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids)
    return counter.get_total_flops()


def test_forward_costs_what_lora_costs(capsys):
    base = forward_flops(llama_7b())
    ours = forward_flops(get_peft_model(llama_7b(), ZeroInitConfig(prompt_length=10, prompt_layers=30)))
    lora = forward_flops(
        get_peft_model(llama_7b(), peft.LoraConfig(r=8, target_modules=["q_proj", "v_proj"]))
    )
    with capsys.disabled():
        sys.stdout.write(
            f"\nforward FLOPs / base, 4 x 512: prompts {ours / base:.5f}, LoRA q,v {lora / base:.5f}\n"
        )
    assert base > 2 * 6.4e9 * 4 * 512
    assert base < ours
    assert base < lora
    assert abs(ours / lora - 1) < 0.005


@pytest.mark.parametrize(
    ("config", "tensors", "values"),
    [
        # V1. Its released file has 1 229 824 values in 33 tensors: it also holds the gates of the two layers
        # without prompts, and one tensor for all prompts.
        (ZeroInitConfig(preset="v1"), 30 + 30, 30 * 10 * HIDDEN + 30 * HEADS),
        # What V2 trains in its second stage, as its code counts it.
        (ZeroInitConfig(prompt_length=0, deltas=[BIASES], norms=True), 225, 1_363_968),
        # The same stage of ImageBind-LLM: with LoRA of rank 16 on all seven maps.
        (
            ZeroInitConfig(prompt_length=0, deltas=[BIASES, {"kind": "lora", "rank": 16}], norms=True),
            673,
            41_340_928,
        ),
    ],
    ids=["v1", "v2-second-stage", "imagebind-second-stage"],
)
def test_trainable_values_are_the_published(config, tensors, values):
    model = get_peft_model(llama_7b(), config)
    shapes = [parameter.shape for parameter in model.parameters() if parameter.requires_grad]
    assert len(shapes) == tensors
    assert sum(shape.numel() for shape in shapes) == values


def test_v1_differs_from_the_released_file_by_the_unused_gates():
    assert 30 * 10 * HIDDEN + 30 * HEADS + 2 * HEADS == 1_229_824


def test_presets_train_what_their_parts_add_up_to():
    """V2: V1's parts on 31 layers, a scale and a bias on five maps of each layer, all 65 norms."""
    model = get_peft_model(llama_7b(), ZeroInitConfig(preset="v2"))
    prompts = 31 * (10 * HIDDEN + HEADS)
    maps = LAYERS * 2 * (3 * HIDDEN + 2 * INNER)
    norms = (2 * LAYERS + 1) * HIDDEN
    assert model.get_nb_trainable_parameters()[0] == prompts + maps + norms
