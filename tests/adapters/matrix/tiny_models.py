"""Tiny random models of every family in the support matrix, and what to feed them.

Weights are much larger than a fresh model's, and biases and norms are random too, so that a dropped bias, a
forgotten norm or a wrong head shows up in the output instead of drowning in it.

This file does not import the package: one check compares models before and after that import.
"""

import copy
import dataclasses
import functools
import inspect
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedModel

DECODER, TEXT, IMAGE = "decoder", "text encoder", "image encoder"

VOCABULARY = 99
_TOKENS = {"vocab_size": VOCABULARY, "max_position_embeddings": 64}
_SIZES = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4}
_ENDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
_GROUPED = {**_SIZES, **_TOKENS, **_ENDS, "num_key_value_heads": 2, "attention_dropout": 0.0}
_BERT = {
    **_SIZES,
    **_TOKENS,
    "pad_token_id": 0,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
_DEPTHS = ("num_hidden_layers", "n_layer", "n_layers")
_PIXELS = {**_SIZES, "image_size": 16, "patch_size": 4}
_LABELS = {"num_labels": 3}


@dataclass(frozen=True, kw_only=True)
class TinyModel:
    """One column of the matrix: a model type and how to build a tiny model of it."""

    title: str
    model_type: str
    kind: str
    auto_class: str
    sizes: dict[str, Any] = field(hash=False)
    implementations: tuple[str, ...] = ("eager", "sdpa")
    structural_zeros: tuple[str, ...] = ()
    """Parts of names of trainable tensors that never get a gradient.

    A bias on the keys adds the same to all scores of a query, which a softmax does not see. A rotary
    embedding after the bias breaks that, as does DeBERTa's product of keys and positions.
    """

    def auto(self) -> Any:
        return getattr(transformers, self.auto_class)

    def base(self, implementation: str | None = None) -> PreTrainedModel:
        """A fresh copy of the model, without an adapter."""
        return copy.deepcopy(_build(self, implementation or self.implementations[-1]))

    def shallow(self) -> "TinyModel":
        """The same with two layers, for what takes long per layer."""
        return dataclasses.replace(
            self, sizes={name: 2 if name in _DEPTHS else size for name, size in self.sizes.items()}
        )

    def inputs(self, rows: int = 2, length: int = 9, seed: int = 0) -> dict[str, Tensor]:
        """Forward arguments: token ids without padding, or images."""
        generator = torch.Generator().manual_seed(seed)
        if self.kind == IMAGE:
            return {"pixel_values": torch.randn(rows, 3, 16, 16, generator=generator)}
        ids = torch.randint(3, VOCABULARY, (rows, length), generator=generator)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    @property
    def takes_positions(self) -> bool:
        """Whether the forward takes position ids; models with ALiBi count from the mask."""
        return "position_ids" in inspect.signature(type(self.base()).forward).parameters


def output(model: nn.Module, inputs: dict[str, Tensor], **options: Any) -> Tensor:
    """What the model computes, whatever it is called: logits, or hidden states with the pooled vector."""
    result = model(**inputs, **options)
    if getattr(result, "logits", None) is not None:
        return result.logits
    return torch.cat([result.last_hidden_state, result.pooler_output[:, None]], dim=1)


def loss(model: nn.Module, inputs: dict[str, Tensor], **options: Any) -> Tensor:
    """A loss on which every output has a different say."""
    result = output(model, inputs, **options)
    weights = torch.randn(result.shape, generator=torch.Generator().manual_seed(7))
    return (result.float() * weights).mean()


@functools.cache
def _build(tiny: TinyModel, implementation: str) -> PreTrainedModel:
    config = AutoConfig.for_model(tiny.model_type, **tiny.sizes)
    torch.manual_seed(0)
    model = tiny.auto().from_config(config, attn_implementation=implementation).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() > 1 and "norm" not in name.lower():
                parameter.copy_(noise * 0.15)
            else:
                parameter.add_(noise * 0.15)
    # PEFT freezes the base, and torch's multi-head attention (SigLIP's pooling) picks its kernel by that.
    return model.requires_grad_(False)


def _tiny(title: str, model_type: str, **options: Any) -> TinyModel:
    return TinyModel(title=title, model_type=model_type, **options)


def _decoder(title: str, model_type: str, sizes: dict[str, Any] | None = None, **options: Any) -> TinyModel:
    return _tiny(
        title,
        model_type,
        kind=DECODER,
        auto_class="AutoModelForCausalLM",
        sizes=_GROUPED | (sizes or {}),
        **options,
    )


def _other_decoder(title: str, model_type: str, sizes: dict[str, Any], **options: Any) -> TinyModel:
    """A decoder whose config has names of its own."""
    sizes = {"vocab_size": VOCABULARY} | _ENDS | sizes
    return _tiny(title, model_type, kind=DECODER, auto_class="AutoModelForCausalLM", sizes=sizes, **options)


def _text(title: str, model_type: str, auto_class: str, sizes: dict[str, Any], **options: Any) -> TinyModel:
    return _tiny(
        title, model_type, kind=TEXT, auto_class=auto_class, sizes=_BERT | _LABELS | sizes, **options
    )


def _image(title: str, model_type: str, auto_class: str, sizes: dict[str, Any]) -> TinyModel:
    return _tiny(
        title,
        model_type,
        kind=IMAGE,
        auto_class=auto_class,
        sizes=_PIXELS | sizes,
        structural_zeros=(".k_proj.zero_init_bias",),
    )


# A head size of its own (24 * 4 != 64) where the config allows one, so that nothing may assume the usual.
_ALL = [
    _decoder("LLaMA", "llama", {"attention_bias": True, "mlp_bias": True}),
    _decoder("Mistral", "mistral", {"head_dim": 24, "sliding_window": 5}),
    _decoder("Mixtral", "mixtral", {"num_local_experts": 4, "router_jitter_noise": 0.0}),
    _decoder("Qwen2", "qwen2"),
    _decoder("Qwen3", "qwen3", {"head_dim": 24}),
    _decoder("Gemma", "gemma", {"head_dim": 24}),
    _decoder("Gemma 2", "gemma2", {"head_dim": 24, "sliding_window": 5}, implementations=("eager",)),
    _decoder("Gemma 3", "gemma3_text", {"head_dim": 24, "sliding_window": 5, "sliding_window_pattern": 2}),
    _decoder("Phi-3", "phi3", {"resid_pdrop": 0.0, "embd_pdrop": 0.0}),
    _decoder("OLMo2", "olmo2"),
    _decoder("InternLM3", "internlm3", {"head_dim": 24, "qkv_bias": True, "bias": True}),
    _other_decoder(
        "GPT-2",
        "gpt2",
        {
            "n_embd": 64,
            "n_layer": 3,
            "n_head": 4,
            "n_positions": 64,
            "resid_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "attn_pdrop": 0.0,
        },
    ),
    _text("BERT", "bert", "AutoModelForMaskedLM", {}, structural_zeros=(".key.zero_init_bias",)),
    _text(
        "RoBERTa",
        "roberta",
        "AutoModelForSequenceClassification",
        {},
        structural_zeros=(".key.zero_init_bias",),
    ),
    _image("ViT", "vit", "AutoModelForImageClassification", _LABELS),
    _image("DINOv2", "dinov2", "AutoModelForImageClassification", _LABELS),
    _image("CLIP vision", "clip_vision_model", "AutoModel", {}),
    _image("SigLIP vision", "siglip_vision_model", "AutoModel", {}),
    _decoder("Falcon", "falcon", {"multi_query": True}),
    _other_decoder(
        "Bloom",
        "bloom",
        {"hidden_size": 64, "n_layer": 3, "n_head": 4, "hidden_dropout": 0.0, "attention_dropout": 0.0},
        implementations=("eager",),
    ),
    _other_decoder(
        "MPT",
        "mpt",
        {"d_model": 64, "n_layers": 3, "n_heads": 4, "max_seq_len": 64, "expansion_ratio": 2},
        implementations=("eager",),
    ),
    _text(
        "DeBERTa-v2",
        "deberta-v2",
        "AutoModelForSequenceClassification",
        {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "max_relative_positions": 16},
        structural_zeros=(".pos_key_proj.zero_init_bias",),
        implementations=("eager",),
    ),
]

TINY_MODELS = {tiny.model_type: tiny for tiny in _ALL}
"""Model type -> its model, in the order of the table."""
