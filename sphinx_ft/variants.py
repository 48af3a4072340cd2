"""The released models, and those of the SPHINX-X paper, as settings.

What is theirs: encoders and how each is fed, padding and grid, what becomes of sub-images. Language models
are known by their sizes alone; their weights come with the released files, or from where a training starts.
Source: docs/sources/sphinx.md#variants. Of SPHINX-X's own neither files nor code with skip tokens
were released; they follow the paper, and where it is silent what is said in ``tokens.py``.
"""

from dataclasses import dataclass, field
from typing import Any

from transformers import LlamaConfig, MixtralConfig, PreTrainedConfig

from llama_adapter.errors import UserError
from sphinx_ft.config import SphinxConfig
from sphinx_ft.encoders.base import EncoderConfig
from sphinx_ft.tokens import TokenConfig
from sphinx_ft.views import ViewConfig

_QFORMER: dict[str, Any] = {"kind": "qformer", "queries": 32}
_CLIP: dict[str, Any] = {"kind": "clip"}
_DINOV2: dict[str, Any] = {"kind": "dinov2"}
_SMALL_CONVNEXT: dict[str, Any] = {"kind": "convnext", "input_size": 256, "alignment": "repeat"}
"""Fed with the other encoders' views of 224 pixels, enlarged."""
_LARGE_CONVNEXT: dict[str, Any] = {"kind": "convnext", "view_size": 512}
"""Fed with views of its own."""

_ALL_SMALL = [{**_QFORMER, "dropout": True}, _CLIP, _SMALL_CONVNEXT, _DINOV2]
_ALL_LARGE = [_QFORMER, _CLIP, _LARGE_CONVNEXT, _DINOV2]
_LIGHT = [_LARGE_CONVNEXT, _DINOV2]


@dataclass(frozen=True)
class Variant:
    """One published model."""

    llama_type: str
    """What its files call it; empty for those that the paper alone describes."""
    base: str
    """Its language model; a name of ``BASES``."""
    encoders: list[dict[str, Any]]
    """Settings of ``EncoderConfig``."""
    views: dict[str, Any]
    """Settings of ``ViewConfig``."""
    tokens: dict[str, Any] = field(default_factory=dict)
    """Settings of ``TokenConfig``."""
    balance: float = 0.01
    """Weight of the load-balancing loss of a mixture of experts, as the original counts it."""


def _grid(side: int, cells: int = 0) -> dict[str, Any]:
    """Of the released models, whose code resizes in half precision."""
    return {"image_size": side, "rows": cells, "columns": cells, "half_resize": True}


_X_GRID = {"image_size": 1024, "rows": 2, "columns": 2, "padding": "end"}
_SKIPPING = {"skip": "shared"}

VARIANTS = {
    "sphinx": Variant("llama_ens", "llama-2-13b", _ALL_SMALL, _grid(224)),
    "sphinx-1k": Variant("llama_ens5", "llama-2-13b", _ALL_SMALL, _grid(448, 2)),
    "sphinx-v2-1k": Variant("llama_ens5", "llama-2-13b", _ALL_SMALL, _grid(448, 2)),
    "sphinx-1k-pooled": Variant(
        "llama_ens5p2", "llama-2-13b", _ALL_SMALL, _grid(448, 2), {"pool_sub_images": True}
    ),
    "sphinx-2k": Variant("llama_ens10", "llama-2-13b", _ALL_SMALL, _grid(672, 3)),
    "sphinx-tiny": Variant("llama_ens_light", "tinyllama-1.1b", _LIGHT, _grid(512)),
    "sphinx-tiny-1k": Variant("llama_ens5_light", "tinyllama-1.1b", _LIGHT, _grid(1024, 2)),
    "sphinx-moe": Variant("mixtral_sparse_ens", "mixtral-8x7b", _ALL_LARGE, _grid(512), balance=0.1),
    "sphinx-moe-1k": Variant("mixtral_sparse_ens5", "mixtral-8x7b", _ALL_LARGE, _grid(1024, 2), balance=0.01),
    "sphinx-x-tiny": Variant("", "tinyllama-1.1b", _LIGHT, _X_GRID, _SKIPPING),
    "sphinx-x-intern2": Variant("", "internlm2-7b", _LIGHT, _X_GRID, _SKIPPING),
    "sphinx-x-plus": Variant("", "llama-2-13b", _LIGHT, _X_GRID, _SKIPPING),
    "sphinx-x-moe": Variant("", "mixtral-8x7b", _LIGHT, _X_GRID, _SKIPPING),
}
"""Name -> what is published about it."""

_LLAMA = {"max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "pad_token_id": 0}
BASES: dict[str, dict[str, Any]] = {
    "llama-2-7b": {**_LLAMA},
    "llama-2-13b": {
        **_LLAMA,
        "hidden_size": 5120,
        "intermediate_size": 13824,
        "num_hidden_layers": 40,
        "num_attention_heads": 40,
        "num_key_value_heads": 40,
    },
    "tinyllama-1.1b": {
        **_LLAMA,
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 22,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
    },
    "internlm2-7b": {
        **_LLAMA,
        "vocab_size": 92544,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_key_value_heads": 8,
        "max_position_embeddings": 32768,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
    },
    "mixtral-8x7b": {
        "model_type": "mixtral",
        "max_position_embeddings": 32768,
        "pad_token_id": 0,
    },
}
"""Sizes of language models, where they are not the defaults of transformers."""


def variant_config(name: str, text_config: PreTrainedConfig | None = None) -> SphinxConfig:
    """The settings of a published model.

    Args:
        name: of ``VARIANTS``.
        text_config: of another language model than its own.

    Raises:
        UserError: there is no such variant.
    """
    if name not in VARIANTS:
        raise UserError(f"There is no variant {name!r}. Use one of {sorted(VARIANTS)}.")
    variant = VARIANTS[name]
    return SphinxConfig(
        text_config=text_config or _base(variant),
        encoders=[EncoderConfig(**settings) for settings in variant.encoders],
        views=ViewConfig(**variant.views),
        tokens=TokenConfig(**variant.tokens),
    )


def _base(variant: Variant) -> PreTrainedConfig:
    """Settings of a language model."""
    settings = dict(BASES[variant.base])
    if settings.pop("model_type", "llama") == "llama":
        return LlamaConfig(**settings)
    config = MixtralConfig(**settings)
    balance(config, variant.balance)
    return config


def balance(config: MixtralConfig, weight: float) -> None:
    """Set the weight of the load-balancing loss.

    Args:
        config: of the language model.
        weight: as the original counts it, which divides by the experts of a token; transformers does not.
    """
    config.router_aux_loss_coef = weight / config.num_experts_per_tok
