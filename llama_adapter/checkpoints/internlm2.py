"""InternLM2's folders: its own names, queries, keys and values in one map; otherwise a LLaMA.

The published files need InternLM's own code; converted they load as ``LlamaForCausalLM``. Rows of queries and
keys are in transformers' order already. Source: the config.json and file lists of the releases.
"""

import re
from collections.abc import Collection
from typing import Any

from transformers import LlamaConfig, PreTrainedConfig

from llama_adapter.checkpoints.convert import ConvertConfig
from llama_adapter.checkpoints.family import Family, Habits
from llama_adapter.checkpoints.model_export import export_model
from llama_adapter.checkpoints.model_files import MISFIT, OfficialModel
from llama_adapter.checkpoints.model_import import import_model
from llama_adapter.checkpoints.names import HF_LAYER
from llama_adapter.checkpoints.stored import GroupedQkv, Layout, Stored
from llama_adapter.errors import UserError

_FILES = re.compile(r"(pytorch_)?model(-\d+-of-\d+)?\.(bin|safetensors)")
_LINEARS = {
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w3": "mlp.up_proj",
    "feed_forward.w2": "mlp.down_proj",
}
_NORMS = {"attention_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
_SAME = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "rms_norm_eps",
    "max_position_embeddings",
    "tie_word_embeddings",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
)
"""Settings that both call the same."""


def to_hf(config: ConvertConfig) -> int:
    """Convert InternLM2's folder; see ``import_model``."""
    return import_model(config, _FAMILY)


def to_official(config: ConvertConfig) -> int:
    """Write InternLM2's folder; see ``export_model``."""
    return export_model(config, _FAMILY)


def _stored(config: Any, names: Collection[str]) -> list[Stored]:
    """Every tensor of the files."""
    del names
    hidden, inner = config.hidden_size, config.intermediate_size
    tensors = [
        _one("model.tok_embeddings.weight", "model.embed_tokens.weight", (config.vocab_size, hidden)),
        _one("model.norm.weight", "model.norm.weight", (hidden,)),
    ]
    if not config.tie_word_embeddings:
        tensors.append(_one("output.weight", "lm_head.weight", (config.vocab_size, hidden)))
    for layer in range(config.num_hidden_layers):
        prefix = HF_LAYER.format(layer=layer)
        tensors += _attention(prefix, config)
        tensors += [
            _one(f"{prefix}{name}.weight", f"{prefix}{ours}.weight", (hidden,))
            for name, ours in _NORMS.items()
        ]
        tensors += [
            _one(f"{prefix}{name}.weight", f"{prefix}{ours}.weight", shape)
            for (name, ours), shape in zip(
                _LINEARS.items(), ((inner, hidden), (inner, hidden), (hidden, inner)), strict=True
            )
        ]
    return tensors


def _one(name: str, ours: str, shape: tuple[int, ...], layout: Layout | None = None) -> Stored:
    """A tensor that holds one weight of the same shape."""
    return Stored(name=name, shape=shape, weights={ours: shape}, layout=layout or Layout())


def _attention(prefix: str, config: Any) -> list[Stored]:
    """The combined map and the output map of one layer."""
    hidden, heads, groups = config.hidden_size, config.num_attention_heads, config.num_key_value_heads
    rows = {"q_proj": heads * config.head_dim}
    rows |= dict.fromkeys(("k_proj", "v_proj"), groups * config.head_dim)
    layout = GroupedQkv(groups, heads // groups)
    parts = {"weight": (hidden,), "bias": ()} if config.attention_bias else {"weight": (hidden,)}
    tensors = []
    for part, columns in parts.items():
        weights = {f"{prefix}self_attn.{name}.{part}": (count, *columns) for name, count in rows.items()}
        shape = (sum(rows.values()), *columns)
        tensors.append(
            Stored(name=f"{prefix}attention.wqkv.{part}", shape=shape, weights=weights, layout=layout)
        )
        shape = (hidden, rows["q_proj"])[: 1 + len(columns)]
        tensors.append(_one(f"{prefix}attention.wo.{part}", f"{prefix}self_attn.o_proj.{part}", shape))
    return tensors


def _config(official: OfficialModel) -> PreTrainedConfig:
    """The config, under LLaMA's names.

    Raises:
        UserError: It is no InternLM2's.
    """
    params = official.params
    if params.get("model_type") != "internlm2":
        raise UserError(
            f"config.json says model_type {params.get('model_type')!r}, not 'internlm2'. {MISFIT}"
        )
    scaling = dict(params.get("rope_scaling") or {})
    kind = scaling.pop("type", None) or scaling.pop("rope_type", "default")
    return LlamaConfig(
        **{name: params[name] for name in _SAME if name in params},
        attention_bias=params.get("bias", False),
        hidden_act=params.get("hidden_act", "silu"),
        rope_parameters={"rope_type": kind, "rope_theta": float(params.get("rope_theta", 1e4)), **scaling},
    )


def _params(config: Any) -> dict[str, dict[str, Any]]:
    """config.json of a model that never was an InternLM2."""
    rope = dict(config.rope_parameters)
    kind, theta = rope.pop("rope_type"), rope.pop("rope_theta")
    params = {
        "architectures": ["InternLM2ForCausalLM"],
        "model_type": "internlm2",
        **{name: getattr(config, name) for name in _SAME},
        "bias": config.attention_bias,
        "hidden_act": config.hidden_act,
        "rope_theta": theta,
        "rope_scaling": None if kind == "default" else {"type": kind, **rope},
    }
    return {"config.json": params}


_FAMILY = Family(
    model_type="llama",
    architecture="LlamaForCausalLM",
    files=_FILES,
    owner="InternLM2",
    settings=("config.json",),
    config=_config,
    stored=_stored,
    params=_params,
    habits=Habits("model.safetensors"),
)
