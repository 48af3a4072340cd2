"""The goldens as official files, and our parameter names of their trained tensors, written by hand.

Nothing here comes from the converter, so that it can serve as its oracle.
"""

import json

import torch
from safetensors.torch import load_file

from tests.adapters.official import GOLDEN, LINEARS, NORMS, rotated

PARAMS = {"dim": 64, "n_layers": 4, "n_heads": 4, "vocab_size": 200, "multiple_of": 32, "norm_eps": 1e-5}
BASE_PARTS = ("wq.weight", "wk.weight", "wv.weight", "wo.weight", "w1.weight", "w2.weight", "w3.weight")
NORM_WEIGHTS = ("attention_norm.weight", "ffn_norm.weight", "norm.weight")
BASE_ALONE = ("tok_embeddings.weight", "output.weight")
KINDS = {
    "v1": "adapter-v1",
    "v2_chat": "adapter-v2-chat",
    "v2_chat_prompts": "adapter-v2-chat",
    "v2_multimodal_bias": "adapter-v2",
    "v21_lora_bias": "adapter-v2",
}
OPTIONS = {
    "v2_multimodal_bias": {"w_bias": True, "w_lora": False, "lora_rank": 16},
    "v21_lora_bias": {"w_bias": True, "w_lora": True, "lora_rank": 4},
}


def load(case):
    """All tensors of a golden file, under the original names."""
    return load_file(GOLDEN / f"{case}.safetensors")


def is_base(name):
    """Whether a tensor belongs to the frozen LLaMA and is no norm."""
    return (
        name.endswith(BASE_PARTS) and "lora_" not in name and "layers." in name or name.endswith(BASE_ALONE)
    )


def adapter_tensors(case):
    """What the official adapter file of a case holds."""
    weights = {name: tensor for name, tensor in load(case).items() if not name.startswith("golden.")}
    if case == "v1":
        return {name: tensor for name, tensor in weights.items() if "gate" in name or "adapter_query" in name}
    return {name: tensor for name, tensor in weights.items() if not is_base(name)}


def write_meta_llama(case, folder):
    """Write the case's LLaMA as Meta's files."""
    tensors = {name.removeprefix("llama."): tensor for name, tensor in load(case).items()}
    base = {name: tensor for name, tensor in tensors.items() if is_base(name) or name.endswith(NORM_WEIGHTS)}
    base = {
        name: tensor for name, tensor in base.items() if name.startswith(("layers.", *BASE_ALONE, "norm."))
    }
    folder.mkdir()
    torch.save(base, folder / "consolidated.00.pth")
    (folder / "params.json").write_text(json.dumps(PARAMS))


def write_adapter(case, path):
    """Write the case's adapter as its official code saves it."""
    tensors = adapter_tensors(case)
    content = tensors if case == "v1" else {"model": tensors}
    if case in OPTIONS:
        content["config"] = OPTIONS[case]
    torch.save(content, path)


def same(tensor):
    """No change on the way."""
    return tensor


def trained(case):
    """(our parameter, official name, official value -> ours) of every trained tensor but prompts."""
    official = adapter_tensors(case)
    llama = "llama." if case in OPTIONS else ""
    for layer in range(4):
        ours, theirs = f"base_model.model.model.layers.{layer}.", f"{llama}layers.{layer}."
        branch = f"{ours}self_attn.prompt_attention.zero_init_"
        for gate in ("gate", "new_gate") if layer else ():
            yield f"{branch}{gate}.default.value", f"{theirs}attention.{gate}", lambda t: t[0]
        for meta, hf in LINEARS.items():
            block, short = meta.split(".")
            turn = lambda t, meta=meta: rotated(meta, t)  # noqa: E731
            zero = f"{ours}{hf}.zero_init_"
            yield f"{zero}bias.default.value", f"{theirs}{meta}.bias", turn
            yield f"{zero}bias.default.value", f"{theirs}{meta}_bias", turn
            yield f"{zero}input_scale.default.value", f"{theirs}{meta}_scale", same
            yield f"{zero}lora.default.down", f"{theirs}{block}.lora_{short}_l1.weight", same
            yield f"{zero}lora.default.up", f"{theirs}{block}.lora_{short}_l2.weight", turn
        for meta, hf in NORMS.items():
            yield f"{ours}{hf}.zero_init_norm.default.weight", f"{theirs}{meta}.weight", same
    yield "base_model.model.model.norm.zero_init_norm.default.weight", f"{llama}norm.weight", same
    assert official


def prompt_parameters():
    """Our parameters that hold the stacked official prompts, from the bottom layer."""
    return [
        f"base_model.model.model.layers.{layer}.self_attn.prompt_attention.zero_init_prompt.default.value"
        for layer in (1, 2, 3)
    ]
