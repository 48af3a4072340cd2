"""Meta's LLaMA folders: consolidated.NN.pth, params.json, tokenizer.model; also LLaMA2-Accessory's.

Source: docs/sources/llama2-accessory.md#files.
"""

from collections.abc import Collection
from typing import Any

from transformers import LlamaConfig

from llama_adapter.checkpoints.convert import ConvertConfig
from llama_adapter.checkpoints.family import CONSOLIDATED, Family
from llama_adapter.checkpoints.meta_params import check_params, llama_config
from llama_adapter.checkpoints.model_export import export_model
from llama_adapter.checkpoints.model_files import OfficialModel
from llama_adapter.checkpoints.model_import import import_model
from llama_adapter.checkpoints.names import base_names
from llama_adapter.checkpoints.stored import Layout, Rotated, Stored

EMBEDDINGS = "tok_embeddings.weight"
COMPUTED = {r"rope\.freqs": "transformers computes them itself"}
_OUTPUT = "output.weight"


def to_hf(config: ConvertConfig) -> int:
    """Convert Meta's folder; see ``import_model``."""
    return import_model(config, _FAMILY)


def to_official(config: ConvertConfig) -> int:
    """Write Meta's folder; see ``export_model``."""
    return export_model(config, _FAMILY)


def dense_tensors(config: Any) -> list[Stored]:
    """Every tensor of a dense LLaMA under Meta's names."""
    return [
        Stored(name=meta, shape=shape, weights={hf: shape}, layout=_layout(meta, config))
        for meta, hf in base_names(config.num_hidden_layers).items()
        if meta != _OUTPUT or not config.tie_word_embeddings
        for shape in (_shape(meta, config),)
    ]


def head_size(config: Any) -> int:
    """Channels of an attention head; a config may leave them open."""
    size: int = config.head_dim or config.hidden_size // config.num_attention_heads
    return size


def _shape(name: str, config: Any) -> tuple[int, ...]:
    """Shape of a weight, which is the same in both formats."""
    hidden, inner, vocabulary = config.hidden_size, config.intermediate_size, config.vocab_size
    queries = config.num_attention_heads * head_size(config)
    keys = config.num_key_value_heads * head_size(config)
    by_module = {
        "tok_embeddings": (vocabulary, hidden),
        "output": (vocabulary, hidden),
        "wk": (keys, hidden),
        "wv": (keys, hidden),
        "wq": (queries, hidden),
        "wo": (hidden, queries),
        "w1": (inner, hidden),
        "w3": (inner, hidden),
        "w2": (hidden, inner),
    }
    return by_module.get(name.split(".")[-2], (hidden,))


def _layout(name: str, config: Any) -> Layout:
    """Queries and keys have other rows."""
    heads = {"wq": config.num_attention_heads, "wk": config.num_key_value_heads}
    module = name.split(".")[-2]
    return Rotated(heads[module]) if module in heads else Layout()


def _stored(config: Any, names: Collection[str]) -> list[Stored]:
    """Meta's tensors, which have one set of names."""
    del names
    return dense_tensors(config)


def dense_config(official: OfficialModel) -> LlamaConfig:
    """The config; sizes that the settings leave open are taken from the weights.

    Raises:
        UserError: A size is missing.
    """
    params = official.params
    check_params(params, official.paths[0].parent)
    return llama_config(
        params,
        vocab_size=official.rows(EMBEDDINGS, params["dim"]),
        intermediate_size=official.rows("layers.0.feed_forward.w1.weight", params["dim"]),
        tied=_OUTPUT not in official.pieces,
    )


def _params(config: Any) -> dict[str, dict[str, Any]]:
    """params.json of a model that never had one."""
    params = {
        "dim": config.hidden_size,
        "n_layers": config.num_hidden_layers,
        "n_heads": config.num_attention_heads,
        "n_kv_heads": config.num_key_value_heads,
        "vocab_size": config.vocab_size,
        **inner_rule(config.hidden_size, config.intermediate_size),
        "norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_parameters["rope_theta"],
        "use_scaled_rope": config.rope_parameters["rope_type"] == "llama3",
    }
    return {"params.json": params}


def inner_rule(hidden: int, inner: int) -> dict[str, Any]:
    """What makes Meta's rule give an MLP's width: 8/3 of the hidden size, times a factor, rounded up."""
    plain, multiple = int(8 * hidden / 3), 256
    if -(-plain // multiple) * multiple == inner:
        return {"multiple_of": multiple, "ffn_dim_multiplier": None}
    return {"multiple_of": 1, "ffn_dim_multiplier": (inner + 0.5) / plain}  # the rule rounds the product down


_FAMILY = Family(
    model_type="llama",
    architecture="LlamaForCausalLM",
    files=CONSOLIDATED,
    owner="Meta",
    settings=("params.json", "config.json", "meta.json"),
    config=dense_config,
    stored=_stored,
    params=_params,
    prefix="llma.",
    computed=COMPUTED,
)
