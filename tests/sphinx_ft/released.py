"""Tiny models of every released variant, and their files as LLaMA2-Accessory writes them."""

import json
import re

import torch
from transformers import LlamaConfig, MixtralConfig

from sphinx_ft.model import SphinxForConditionalGeneration
from sphinx_ft.official_names import PREFIX
from sphinx_ft.variants import VARIANTS, variant_config
from tests.sphinx_ft.golden_cases import SETTINGS

TEXT = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
TEXTS = {
    "llama-2": LlamaConfig(**TEXT | {"num_key_value_heads": 4}),
    "tinyllama": LlamaConfig(**TEXT),
    "internlm2": LlamaConfig(
        **TEXT | {"vocab_size": 92, "intermediate_size": 56},
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
    ),
    "mixtral": MixtralConfig(
        **TEXT,
        head_dim=4,
        num_local_experts=4,
        num_experts_per_tok=2,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
    ),
}
FAMILIES = {"llama-2-13b": "llama-2", "tinyllama-1.1b": "tinyllama", "mixtral-8x7b": "mixtral"}
RELEASED = [name for name, variant in VARIANTS.items() if variant.llama_type]


def tiny_variant(name, family=None):
    """Settings of a variant, all sizes tiny."""
    config = variant_config(name, TEXTS[family or FAMILIES[VARIANTS[name].base]])
    for encoder in config.encoders:
        encoder["settings"] = dict(SETTINGS[encoder["kind"]])
    return config


def random_model(config, seed=0):
    """A model none of whose tensors is constant."""
    torch.manual_seed(seed)
    model = SphinxForConditionalGeneration(config).eval()
    for weight in model.parameters():
        weight.data += 0.1 * torch.randn_like(weight)
    return model


def share(name, tensor, index, count, experts=0):
    """What one of ``count`` files holds of an official tensor, by docs/sources/llama2-accessory.md."""
    if found := re.fullmatch(r"layers\.\d+\.feed_forward\.w[123]", name):
        return tensor.view(experts, -1, tensor.shape[1]).chunk(count, dim=1)[index].flatten(0, 1).clone()
    found = re.search(r"(?:^|\.)(tok_embeddings|output|attention\.w.|feed_forward\.w.)\.weight$", name)
    if not found or not name.startswith(("layers.", "tok_", "output.")):
        return tensor
    axis = 1 if found[1] in ("tok_embeddings", "attention.wo", "feed_forward.w2") else 0
    return tensor.chunk(count, dim=axis)[index].clone()


def write_released(folder, tensors, count=1, settings=None, code=None, experts=0):
    """A released folder; ``tensors`` by their names without prefix. Returns what each file holds."""
    folder.mkdir()
    shares = []
    for index in range(count):
        held = {PREFIX + name: share(name, tensor, index, count, experts) for name, tensor in tensors.items()}
        torch.save({"model": held}, folder / f"consolidated.{index:02d}-of-{count:02d}.model.pth")
        shares.append(held)
    if settings:
        (folder / "config.json").write_text(json.dumps(settings))
    if code:
        (folder / "meta.json").write_text(json.dumps({"llama_type": code}))
    return shares


GOLDEN_CASES = [
    ("llama_ens", 1),
    ("llama_ens", 2),
    ("llama_ens5", 2),
    ("llama_ens10", 2),
    ("llama_ens_light", 2),
    ("llama_ens5_light", 2),
    ("mixtral_sparse_ens5", 2),
]
"""Goldens of released code, and in how many files."""


def golden_settings(case):
    """config.json of a golden's model."""
    settings = {"dim": 16, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "norm_eps": 1e-5, "vocab_size": 64}
    settings |= {"max_seq_len": 3200, "rope_theta": 10000, "rope_scaling": None}
    settings |= {"load_pretrained_visual_encoder": False}
    if case.startswith("mixtral"):
        moe = {"num_experts_per_tok": 2, "num_experts": 8}
        settings |= {"n_layers": 0, "hidden_dim": 32, "head_dim": 4, "rope_theta": 1e6, "moe": moe}
    return settings
