"""What Meta's LLaMA code and transformers call the same tensors; nothing here knows adapters.

Source: docs/sources/llama-adapter.md#names-and-rotary-order.
"""

from jaxtyping import Shaped
from torch import Tensor

NamedTensors = dict[str, Shaped[Tensor, "..."]]
"""Tensors of any shape by name, as a file holds them."""

LINEARS = {
    "attention.wq": "self_attn.q_proj",
    "attention.wk": "self_attn.k_proj",
    "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj",
}
"""Linear maps of one layer: Meta's name -> transformers' name."""

NORMS = {"attention_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
"""Norms of one layer."""

OUTSIDE_LAYERS = {"tok_embeddings": "model.embed_tokens", "norm": "model.norm", "output": "lm_head"}
"""Modules outside the layers."""

META_LAYER = "layers.{layer}."
HF_LAYER = "model.layers.{layer}."

QUERY_OR_KEY = ("attention.wq", "attention.wk")
"""Maps whose output rows both code bases order differently, see ``rotary``."""


def base_names(num_layers: int) -> dict[str, str]:
    """Every weight of a dense LLaMA: Meta's name -> transformers' name."""
    modules = dict(OUTSIDE_LAYERS)
    for layer in range(num_layers):
        for meta, hf in (LINEARS | NORMS).items():
            modules[META_LAYER.format(layer=layer) + meta] = HF_LAYER.format(layer=layer) + hf
    return {f"{meta}.weight": f"{hf}.weight" for meta, hf in modules.items()}
