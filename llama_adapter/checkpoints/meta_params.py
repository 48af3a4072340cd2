"""Meta's params.json -> transformers' LlamaConfig.

params.json leaves things out: the vocabulary may be -1, the MLP's width is a rule with rounding, the context
length is nowhere. What the weights show is taken from them, the rest from the release that the file belongs
to. LLaMA2-Accessory's config.json has the same settings.
Source: the params.json files of the releases; docs/sources/llama2-accessory.md#files.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import LlamaConfig

from llama_adapter.errors import UserError

_LLAMA_3_THETA = 500_000.0


def check_params(params: Mapping[str, Any], folder: Path, more: Sequence[str] = ()) -> None:
    """Refuse settings that lack a size.

    Args:
        params: Content of params.json.
        folder: Where it lies, for the message.
        more: Settings needed beside a LLaMA's.

    Raises:
        UserError: Names what is missing.
    """
    missing = [name for name in ("dim", "n_layers", "n_heads", "norm_eps", *more) if name not in params]
    if missing:
        raise UserError(
            f"The settings in {str(folder)!r} lack {missing}. Use the params.json that came with the weights."
        )


def llama_config(params: dict[str, Any], vocab_size: int, intermediate_size: int, tied: bool) -> LlamaConfig:
    """The config of a model.

    Args:
        params: Content of params.json.
        vocab_size: Rows of the token embeddings.
        intermediate_size: Rows of ``feed_forward.w1``.
        tied: Whether the weights hold no output embeddings of their own.
    """
    llama_3 = params.get("rope_theta") == _LLAMA_3_THETA
    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=params["dim"],
        intermediate_size=intermediate_size,
        num_hidden_layers=params["n_layers"],
        num_attention_heads=params["n_heads"],
        num_key_value_heads=params.get("n_kv_heads") or params["n_heads"],
        rms_norm_eps=params["norm_eps"],
        max_position_embeddings=_context(params, llama_3),
        rope_parameters=rotary_settings(params),
        tie_word_embeddings=tied,
        bos_token_id=128_000 if llama_3 else 1,
        eos_token_id=128_001 if llama_3 else 2,
    )


def _context(params: dict[str, Any], llama_3: bool) -> int:
    """Context length: LLaMA 1, 2, 3 and 3.1 had 2048, 4096, 8192 and 131072."""
    if "max_seq_len" in params:
        return params["max_seq_len"]
    if llama_3:
        return 131_072 if params.get("use_scaled_rope") else 8192
    # what tells LLaMA 1 from 2; the largest of the first had the second's epsilon, but one key per query
    first = params["norm_eps"] == 1e-6 or (params["n_layers"] == 80 and "n_kv_heads" not in params)
    return 2048 if first else 4096


def rotary_settings(params: Mapping[str, Any]) -> dict[str, Any]:
    """Transformers' rotary settings; scaled ones since LLaMA 3.1, more so in the small models of 3.2.

    Args:
        params: Content of params.json.
    """
    theta = float(params.get("rope_theta", 10_000.0))
    if params.get("rope_scaling"):  # Accessory multiplies positions, transformers divides them
        return {"rope_type": "linear", "rope_theta": theta, "factor": 1 / params["rope_scaling"]}
    if not params.get("use_scaled_rope"):
        return {"rope_type": "default", "rope_theta": theta}
    return {
        "rope_type": "llama3",
        "rope_theta": theta,
        "factor": params.get("rope_scaling_factor", 32.0 if params["dim"] <= 3072 else 8.0),
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
