"""Which trainable tensors weight decay touches, under the published rule.

The published code exempts tensors with at most one dimension and biases. What is unusual: gates carry extra
dimensions of size one, there as here, so they *do* decay; scales, biases and norms do not (transformers' own
rule would pull a scale from 1 towards 0). It knows parameter names and shapes, nothing else.
"""

import re
from collections.abc import Iterable

from torch import nn

_BIAS = re.compile(r"(^|[._])bias(\.|$)")


def published_decay_names(parameters: Iterable[tuple[str, nn.Parameter]]) -> list[str]:
    """Names of the parameters that decay: those with two or more dimensions that are no bias.

    Args:
        parameters: Names and parameters, as ``model.named_parameters()`` gives them.
    """
    return [name for name, parameter in parameters if parameter.ndim > 1 and not _BIAS.search(name)]


def decay_summary(parameters: Iterable[tuple[str, nn.Parameter]], decayed: Iterable[str]) -> str:
    """One line for the run's table: how many trainable tensors decay, and which kinds.

    Args:
        parameters: Names and parameters of the model.
        decayed: Names of the parameters that decay.
    """
    chosen = set(decayed)
    trainable = [name for name, parameter in parameters if parameter.requires_grad]
    groups = {
        "decay": [n for n in trainable if n in chosen],
        "none": [n for n in trainable if n not in chosen],
    }
    parts = []
    for label, names in groups.items():
        kinds = sorted({_kind(name) for name in names})
        parts.append(f"{label}: {len(names)} tensors" + (f" ({', '.join(kinds)})" if kinds else ""))
    return "; ".join(parts)


def _kind(name: str) -> str:
    """The last telling part of a parameter name: without adapter names and ``weight``."""
    parts = [part for part in name.split(".") if part not in ("default", "weight", "value")]
    return parts[-1] if parts else name
