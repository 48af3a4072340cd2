"""Where training begins in a model, and what stands against skipping the layers below."""

import re

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

from llama_adapter import ZeroInitConfig
from llama_adapter.training.frozen_stack import FrozenStack, find_frozen_stack, obstacle

SIZES = {
    "vocab_size": 48,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}


def llama(adapter=None, **options):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(LlamaConfig(**{**SIZES, **options})).requires_grad_(False)
    return get_peft_model(model, adapter or ZeroInitConfig(prompt_length=2, prompt_layers=1))


def lora(**options):
    return LoraConfig(**{"r": 2, "target_modules": ["q_proj"], "layers_to_transform": [2, 3], **options})


@pytest.mark.parametrize(
    ("adapter", "first"),
    [
        (ZeroInitConfig(prompt_length=2, prompt_layers=1), 3),
        (ZeroInitConfig(prompt_length=2, prompt_layers=3), 1),
        (ZeroInitConfig(preset="v2", prompt_length=2, prompt_layers=2, delta_layers=2), 2),
        (lora(), 2),
        (LoraConfig(r=2, target_modules=["lm_head"]), 4),
    ],
)
def test_the_first_trained_layer(adapter, first):
    stack = find_frozen_stack(llama(adapter))
    assert isinstance(stack, FrozenStack)
    assert stack.first == first == len(stack.below)
    assert stack.path == "model.layers"
    assert obstacle(stack) is None
    assert stack.weights_below == first * sum(
        p.numel() for n, p in stack.layers[0].named_parameters() if "zero_init" not in n
    )
    names = {name for name, _ in stack.lower_tensors()}
    assert "model.embed_tokens.weight" in names
    assert "model.rotary_emb.inv_freq" in names
    assert any(name.startswith(f"model.layers.{first - 1}.") for name in names)
    assert not any(name.startswith(f"model.layers.{first}.") for name in names)
    assert not any("lora" in name or "zero_init" in name for name in names)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (lambda: llama(ZeroInitConfig(prompt_length=2)), "layer 0 is trained, so nothing lies below"),
        (lambda: nn.Linear(2, 2), "has no single stack of layers"),
    ],
)
def test_models_without_a_frozen_part(model, reason):
    assert reason in find_frozen_stack(model())


def train_embeddings():
    model = llama()
    model.get_input_embeddings().requires_grad_(True)
    return model


def gpt2(**options):
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=48, n_embd=16, n_layer=2, n_head=2, n_positions=32, **options)
    model = AutoModelForCausalLM.from_config(config).requires_grad_(False)
    return get_peft_model(model, ZeroInitConfig(prompt_length=2, prompt_layers=1))


ROTARY = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (train_embeddings, "the embeddings are trained"),
        (lambda: llama(lora(), tie_word_embeddings=True, attention_dropout=0.1), "attention_dropout=0.1"),
        (
            lambda: llama(LoraConfig(r=2, target_modules=["lm_head"], modules_to_save=["embed_tokens"])),
            "embeddings",
        ),
        (gpt2, "dropout is active below the first trained layer .*=0.1"),
        (
            lambda: llama(rope_parameters=ROTARY),
            r"its rotary embedding \(dynamic\) depends on the longest row",
        ),
    ],
)
def test_obstacles(model, reason):
    stack = find_frozen_stack(model())
    assert isinstance(stack, FrozenStack)
    assert re.search(reason, obstacle(stack))


def test_no_obstacle_without_dropout():
    assert obstacle(find_frozen_stack(gpt2(attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0))) is None
    upper = lora(lora_dropout=0.5)
    assert obstacle(find_frozen_stack(llama(upper))) is None


@pytest.mark.parametrize("option", ["output_router_logits", "num_kv_shared_layers"])
def test_what_a_config_says(option):
    stack = find_frozen_stack(llama())
    setattr(stack.base.config, option, True)
    assert obstacle(stack) is not None
