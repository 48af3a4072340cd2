"""Mixtral's consolidated files, in all three ways in which experts were stored.

Mistral's first release stacks a layer's experts in three tensors (``block_sparse_moe.w1``, the second map
transposed); LLaMA2-Accessory does so under ``feed_forward``; Mistral's own code, and Accessory's other model,
have one module per expert, whole in one of the files.
Source: docs/sources/llama2-accessory.md#language-models.
"""

from collections.abc import Collection
from typing import Any

from transformers import MixtralConfig

from llama_adapter.checkpoints.convert import ConvertConfig
from llama_adapter.checkpoints.family import CONSOLIDATED, Family
from llama_adapter.checkpoints.meta_llama import COMPUTED, EMBEDDINGS, dense_tensors, head_size
from llama_adapter.checkpoints.meta_params import check_params, rotary_settings
from llama_adapter.checkpoints.model_export import export_model
from llama_adapter.checkpoints.model_files import OfficialModel
from llama_adapter.checkpoints.model_import import import_model
from llama_adapter.checkpoints.names import HF_LAYER, META_LAYER
from llama_adapter.checkpoints.stored import StackedExperts, Stored

_HF_BLOCK = HF_LAYER + "block_sparse_moe."
_CONTEXT = 32_768
_MAPS = ("w1", "w2", "w3")
_DOWN = "w2"


def to_hf(config: ConvertConfig) -> int:
    """Convert Mixtral's folder; see ``import_model``."""
    return import_model(config, _FAMILY)


def to_official(config: ConvertConfig) -> int:
    """Write Mixtral's folder; see ``export_model``."""
    return export_model(config, _FAMILY)


def mixtral_tensors(config: Any, names: Collection[str]) -> list[Stored]:
    """Every tensor of a Mixtral under Meta's names.

    Args:
        config: Of the model.
        names: In the files: they show how experts are stored. Without one of the first expert map, each
            expert has tensors of its own.
    """
    tensors = [tensor for tensor in dense_tensors(config) if ".feed_forward." not in tensor.name]
    block = "block_sparse_moe." if any("block_sparse_moe." in name for name in names) else "feed_forward."
    for layer in range(config.num_hidden_layers):
        official, ours = META_LAYER.format(layer=layer) + block, _HF_BLOCK.format(layer=layer)
        gate = (config.num_local_experts, config.hidden_size)
        tensors.append(
            Stored(name=f"{official}gate.weight", shape=gate, weights={f"{ours}gate.weight": gate})
        )
        stacked = [suffix for suffix in ("", ".weight") if f"{official}w1{suffix}" in names]
        for name in _MAPS:
            if stacked:
                tensors.append(_stack(f"{official}{name}{stacked[0]}", ours, name, config))
            else:
                tensors += _modules(official, ours, name, config)
    return tensors


def _shape(name: str, config: Any) -> tuple[int, int]:
    """Shape of one expert's map, (outputs, inputs)."""
    inner, hidden = config.intermediate_size, config.hidden_size
    return (hidden, inner) if name == _DOWN else (inner, hidden)


def _stack(official: str, ours: str, name: str, config: Any) -> Stored:
    """All experts' maps in one tensor."""
    experts = config.num_local_experts
    weights = {f"{ours}experts.{expert}.{name}.weight": _shape(name, config) for expert in range(experts)}
    return Stored(
        name=official,
        shape=(experts * config.intermediate_size, config.hidden_size),
        weights=weights,
        layout=StackedExperts(experts, transposed=name == _DOWN),
    )


def _modules(official: str, ours: str, name: str, config: Any) -> list[Stored]:
    """A tensor for each expert's map."""
    shape = _shape(name, config)
    maps = (f"experts.{expert}.{name}.weight" for expert in range(config.num_local_experts))
    return [Stored(name=official + path, shape=shape, weights={ours + path: shape}) for path in maps]


def mixtral_config(official: OfficialModel) -> MixtralConfig:
    """The config from the settings; the first release left the rotary base out.

    Raises:
        UserError: A size is missing.
    """
    params = official.params
    check_params(params, official.paths[0].parent, ("hidden_dim", "moe"))
    return MixtralConfig(
        vocab_size=official.rows(EMBEDDINGS, params["dim"]),
        hidden_size=params["dim"],
        intermediate_size=params["hidden_dim"],
        num_hidden_layers=params["n_layers"],
        num_attention_heads=params["n_heads"],
        num_key_value_heads=params.get("n_kv_heads") or params["n_heads"],
        head_dim=params.get("head_dim") or params["dim"] // params["n_heads"],
        rms_norm_eps=params["norm_eps"],
        max_position_embeddings=params.get("max_seq_len", _CONTEXT),
        rope_parameters=rotary_settings({"rope_theta": 1e6, **params}),
        num_local_experts=params["moe"]["num_experts"],
        num_experts_per_tok=params["moe"]["num_experts_per_tok"],
    )


def _params(config: Any) -> dict[str, dict[str, Any]]:
    """params.json of a model that never had one."""
    return {"params.json": mixtral_params(config)}


def mixtral_params(config: Any) -> dict[str, Any]:
    """Settings as params.json has them."""
    return {
        "dim": config.hidden_size,
        "n_layers": config.num_hidden_layers,
        "head_dim": head_size(config),
        "hidden_dim": config.intermediate_size,
        "n_heads": config.num_attention_heads,
        "n_kv_heads": config.num_key_value_heads,
        "norm_eps": config.rms_norm_eps,
        "vocab_size": config.vocab_size,
        "rope_theta": config.rope_parameters["rope_theta"],
        "moe": {"num_experts_per_tok": config.num_experts_per_tok, "num_experts": config.num_local_experts},
    }


_FAMILY = Family(
    model_type="mixtral",
    architecture="MixtralForCausalLM",
    files=CONSOLIDATED,
    owner="Mixtral",
    settings=("params.json", "config.json", "meta.json"),
    config=mixtral_config,
    stored=mixtral_tensors,
    params=_params,
    prefix="llma.",
    computed=COMPUTED,
)
