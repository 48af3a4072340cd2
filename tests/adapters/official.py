"""Reads the tiny official-layout checkpoints under tests/golden into transformers models and adapters.

Written by hand for the tests, apart from any converter of the package, so that it can serve as its oracle.
"""

from pathlib import Path

import torch
from peft import get_peft_model
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from llama_adapter import ZeroInitConfig

GOLDEN = Path(__file__).parent.parent / "golden"
LINEARS = {
    "attention.wq": "self_attn.q_proj",
    "attention.wk": "self_attn.k_proj",
    "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj",
}
NORMS = {"attention_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
HEADS = 4
PROMPT_LENGTH = 5
FIRST_ADAPTED = 1


def load(case):
    tensors = load_file(GOLDEN / f"{case}.safetensors")
    return {name.removeprefix("llama."): tensor for name, tensor in tensors.items()}


def halves(rows):
    """Rows of a query or key map from rotary pairs to rotary halves, (heads * size, ...)."""
    shape = rows.shape
    return rows.view(HEADS, -1, 2, *shape[1:]).transpose(1, 2).reshape(shape)


def rotated(name, tensor):
    return halves(tensor) if name in ("attention.wq", "attention.wk") else tensor


def base_model(tensors, **options):
    config = LlamaConfig(
        vocab_size=200,
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=4,
        num_attention_heads=HEADS,
        rms_norm_eps=1e-5,
        **options,
    )
    state = {
        "model.embed_tokens.weight": tensors["tok_embeddings.weight"],
        "model.norm.weight": tensors["norm.weight"],
        "lm_head.weight": tensors["output.weight"],
    }
    for layer in range(4):
        ours, theirs = f"model.layers.{layer}.", f"layers.{layer}."
        for name, target in LINEARS.items():
            state[f"{ours}{target}.weight"] = rotated(name, tensors[f"{theirs}{name}.weight"])
        for name, target in NORMS.items():
            state[f"{ours}{target}.weight"] = tensors[f"{theirs}{name}.weight"]
    model = LlamaForCausalLM(config)
    model.load_state_dict(state)
    return model


def adapter_parameters(tensors, chat):
    """(our parameter name, official name, conversion of the official value) of every adapter tensor."""
    for layer in range(4):
        ours, theirs = f"base_model.model.model.layers.{layer}.", f"layers.{layer}."
        if layer >= FIRST_ADAPTED:
            rows = slice((layer - FIRST_ADAPTED) * PROMPT_LENGTH, (layer - FIRST_ADAPTED + 1) * PROMPT_LENGTH)
            branch = f"{ours}self_attn.prompt_attention.zero_init"
            yield f"{branch}_prompt.default.value", "adapter_query.weight", lambda t, r=rows: t[r]
            yield f"{branch}_gate.default.value", f"{theirs}attention.gate", lambda t: t[0]
        for name, target in LINEARS.items() if chat else ():
            scale, bias = f"{theirs}{name}_scale", f"{theirs}{name}_bias"
            yield f"{ours}{target}.zero_init_input_scale.default.value", scale, lambda t: t
            yield f"{ours}{target}.zero_init_bias.default.value", bias, lambda t, n=name: rotated(n, t)


def adapted_model(tensors, chat, **options):
    deltas = ["input_scale", "bias"] if chat else []
    config = ZeroInitConfig(
        task_type="CAUSAL_LM", prompt_length=PROMPT_LENGTH, prompt_layers=3, deltas=deltas, **options
    )
    model = get_peft_model(base_model(tensors), config)
    parameters = dict(model.named_parameters())
    for ours, theirs, convert in adapter_parameters(tensors, chat):
        with torch.no_grad():
            parameters[ours].copy_(convert(tensors[theirs]))
    return model
