"""Which parameters of a SPHINX model are trained: the published sets, as rules on names.

Source: docs/sources/sphinx.md#what-trains. The published first stage of the light models trains
``visual_proj`` alone,
that of SPHINX-MoE-1k the marks, too, but not the Q-Former's projection.
"""

import re
from collections.abc import Callable
from typing import Literal

from torch import nn

from llama_adapter.errors import UserError

TrainableSet = Literal[
    "all_but_encoders",
    "everything",
    "view_tokens",
    "mixed_projection",
    "mixed_projection_and_marks",
    "biases_and_norms",
]
_SETS: dict[TrainableSet, Callable[[str], bool]] = {
    "all_but_encoders": lambda name: not name.startswith("encoders."),
    "everything": lambda name: True,
    "view_tokens": lambda name: name.startswith("view_tokens."),
    "mixed_projection": lambda name: name.startswith("view_tokens.mixed_projection."),
    "mixed_projection_and_marks": lambda name: (
        re.match(r"view_tokens\.(mixed_projection|start|end|skip)\b", name) is not None
    ),
    "biases_and_norms": lambda name: (
        name.startswith("language_model.") and re.search(r"bias$|norm", name) is not None
    ),
}
"""Name -> which parameters. ``all_but_encoders`` is the second stage of all released models and the only one
of SPHINX-X; ``mixed_projection`` and ``mixed_projection_and_marks`` are the first of the light models and of
SPHINX-MoE-1k; ``biases_and_norms`` is what the PEFT variant trains besides LoRA."""

TRAINABLE_SETS: tuple[str, ...] = tuple(_SETS)


def set_trainable(model: nn.Module, chosen: str) -> int:
    """Have exactly one set of parameters trained.

    Args:
        model: a SPHINX model.
        chosen: of ``TRAINABLE_SETS``.

    Returns:
        How many numbers that are.

    Raises:
        UserError: there is no such set, or it is empty.
    """
    if chosen not in _SETS:
        raise UserError(f"There is no set of parameters {chosen!r}. Use one of {list(TRAINABLE_SETS)}.")
    for name, weight in model.named_parameters():
        weight.requires_grad_(_SETS[chosen](name))
    count = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    if not count:
        raise UserError(f"The model has no parameters of the set {chosen!r}. Use another of {list(_SETS)}.")
    model.train(model.training)
    return count
