"""What models do to logits after their head: scale them, cap them, cut them.

A table of configuration fields, in the order in which models apply them. What is unusual: it is only a claim.
``labelled_loss`` compares it with the model's own output before the first step and does without it where they
differ, so a model whose field means something else here costs speed, not correctness. It knows
configurations, no modules.

Letters: P positions, V vocabulary.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

Tail: TypeAlias = Callable[[Tensor], Tensor]
"""From the head's output to the logits that the model returns, of any number of positions."""


def _multiply(logits: Float[Tensor, "*P V"], factor: float) -> Float[Tensor, "*P V"]:
    return logits * factor


def _divide(logits: Float[Tensor, "*P V"], divisor: float) -> Float[Tensor, "*P V"]:
    return logits / divisor


def _cap(logits: Float[Tensor, "*P V"], cap: float) -> Float[Tensor, "*P V"]:
    return torch.tanh(logits / cap) * cap


def _cut(logits: Float[Tensor, "*P V"], width: int) -> Float[Tensor, "*P W"]:
    return logits[..., :width]


_FIELDS: dict[str, Callable[[Tensor, Any], Tensor]] = {
    "logit_scale": _multiply,  # Cohere
    "logits_scaling": _divide,  # Granite
    "lm_head_multiplier": _multiply,  # Falcon-H1
    "output_multiplier": _multiply,  # Muse, before its cap
    "final_logit_softcapping": _cap,  # Gemma, NanoChat, PaliGemma
    "logits_soft_cap": _cap,  # RecurrentGemma
    "output_logit_soft_cap": _cap,  # xLSTM
    "unpadded_vocab_size": _cut,  # Inkling
}
"""Field of the text configuration -> what a model that has it does; None as a value switches it off."""

_OTHERWISE: dict[tuple[str, str], Callable[[Tensor, Any], Tensor]] = {
    ("hyperclovax", "logits_scaling"): _multiply,
}
"""Model types (of the text configuration) that use a field in another way."""


def tail_of(config: Any) -> Tail | None:
    """What a model with this configuration does to its head's output; None if nothing is known of.

    Args:
        config: A transformers configuration; of a multimodal model, its text part counts.
    """
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    kind = str(getattr(text, "model_type", ""))
    steps = [
        (_OTHERWISE.get((kind, field), change), value)
        for field, change in _FIELDS.items()
        if isinstance(value := getattr(text, field, None), int | float)
    ]
    if not steps:
        return None

    def tail(logits: Float[Tensor, "*P V"]) -> Float[Tensor, "*P W"]:
        for change, value in steps:
            logits = change(logits, value)
        return logits

    return tail
