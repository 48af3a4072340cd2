"""What an adapter remembers of its base model, to notice at load that it sits on another one.

Architecture by name and size, and a few embedding values: a fine-tuned sibling has the same sizes. Values are
compared loosely, since the same weights are loaded in several precisions.
"""

from typing import Any

import torch
from torch import nn

from llama_adapter.adapters.families import text_config

SIZES = (
    "model_type",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "vocab_size",
)
_SAMPLE_ROWS = slice(10, 18)


def fingerprint(model: nn.Module) -> dict[str, Any]:
    """Sizes of the base model and, where its embeddings are plain weights, a sample of them."""
    sizes = {name: getattr(text_config(model), name, None) for name in SIZES}
    return {name: value for name, value in sizes.items() if value is not None} | _embedding_sample(model)


def differences(saved: dict[str, Any], model: nn.Module) -> list[str]:
    """What differs between a saved fingerprint and a model, one phrase each."""
    found = fingerprint(model)
    names = [name for name in saved.keys() & found.keys() if name != "embedding_sample"]
    phrases = [
        f"{name} was {saved[name]!r}, is {found[name]!r}" for name in names if saved[name] != found[name]
    ]
    then, now = saved.get("embedding_sample"), found.get("embedding_sample")
    if then and now and not torch.allclose(torch.tensor(then), torch.tensor(now), rtol=0.05, atol=1e-3):
        phrases.append("the embedding weights differ")
    return sorted(phrases)


def _embedding_sample(model: nn.Module) -> dict[str, list[float]]:
    """A few values of the input embeddings, if they are readable."""
    try:
        embeddings = getattr(model, "get_input_embeddings", lambda: None)()
    except NotImplementedError:
        return {}
    weight = getattr(embeddings, "weight", None)
    if weight is None or weight.dim() != 2 or not weight.is_floating_point() or weight.device.type == "meta":
        return {}
    sample = weight[_SAMPLE_ROWS, 0].detach().float().cpu()
    return {"embedding_sample": [round(value, 5) for value in sample.tolist()]}
