"""Which part of a model each parameter belongs to, and how many are frozen and trainable.

Base parts are known by the words in a parameter's path, adapter parts by what stands before the adapter's
name. The order of the words matters: a norm inside an attention block counts as a norm. It knows no model
family.
"""

import re
from dataclasses import dataclass

from torch import nn

from llama_adapter.training.parts import CONDITIONER, TrainedParts
from llama_adapter.training.parts import part_of as adapter_part

_BASE_PARTS = (
    ("norms", re.compile(r"norm|\bln_", re.IGNORECASE)),
    ("output head", re.compile(r"lm_head|embed_out|\bscore\b")),
    ("embeddings", re.compile(r"embed|\bwte\b|\bwpe\b")),
    ("attention", re.compile(r"attn|attention")),
    ("MLP", re.compile(r"mlp|feed_forward|experts|moe|\bfc\d\b|intermediate|output\.dense")),
)


@dataclass(frozen=True)
class PartCount:
    """The parameters of one part."""

    part: str
    """Name of the part; those of the adapter start with `adapter: `."""
    frozen: int
    """Number of parameters that stay."""
    trainable: int
    """Number of parameters that learn."""
    num_bytes: int
    """Size of both in memory."""


def count_parts(model: nn.Module) -> list[PartCount]:
    """Counts every parameter once, tied ones too, grouped by part in the order they first occur."""
    adapters = TrainedParts.of(model).adapter_names
    counts: dict[str, PartCount] = {}
    for name, parameter in model.named_parameters():
        part = part_of(name, adapters)
        before = counts.get(part, PartCount(part, 0, 0, 0))
        size = parameter.numel()
        counts[part] = PartCount(
            part,
            before.frozen + (0 if parameter.requires_grad else size),
            before.trainable + (size if parameter.requires_grad else 0),
            before.num_bytes + size * parameter.element_size(),
        )
    return sorted(counts.values(), key=lambda count: count.part.startswith("adapter"))


def part_of(name: str, adapters: set[str]) -> str:
    """The part that a parameter's path belongs to.

    Args:
        name: path of the parameter, as `named_parameters` gives it.
        adapters: names of the adapters; without any, all are parts of the base.
    """
    own = adapter_part(name, adapters) if adapters else None
    if own is not None:
        return own if own == CONDITIONER else f"adapter: {own}"
    if name.startswith(("encoder.", "encoders.")):
        return "image encoder"
    return next((part for part, pattern in _BASE_PARTS if pattern.search(name)), "other")
