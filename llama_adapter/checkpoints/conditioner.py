"""The part of official files that conditions prompts: which tensors it has, of which shapes, and their names.

It turns features of an image, or of another input, into what is added to the prompts. A layout names the
``OfficialConditioner`` of its files; here is that of V2, whose tensors keep their official names. A
conversion keeps all of them beside the adapter, where ``load_conditioner`` reads them.

Dimensions: H hidden size of the LLaMA.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from llama_adapter.checkpoints.names import NamedTensors
from llama_adapter.conditioning import ConditionerConfig
from llama_adapter.conditioning.visual_queries import VisualQueries, VisualQueriesConfig


@dataclass(frozen=True, kw_only=True)
class OfficialConditioner:
    """One kind of conditioner in official files."""

    shapes: Callable[[NamedTensors, int], dict[str, tuple[int, ...]]]
    """From a file's tensors, of which a few say depth and widths, and the hidden size H: the shape of every
    tensor, by its official name."""
    settings: Callable[[NamedTensors], ConditionerConfig | None]
    """From a file's tensors: the settings to write down; None where they are read off shapes again."""
    ours: Callable[[str], str] = str
    """Our name of a tensor."""
    official: Callable[[str], str] = str
    """Its official name, from ours; a name that no such tensor has stays."""


def conditioner_shapes(tensors: NamedTensors, hidden_size: int) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of V2's visual part.

    Args:
        tensors: A file's tensors; depth and widths are read off a few of them.
        hidden_size: Hidden size H of the LLaMA.
    """
    config = replace(VisualQueriesConfig.of_tensors(tensors, num_heads=1), hidden_size=hidden_size)
    with torch.device("meta"):
        wanted = VisualQueries(config).state_dict()
    return {name: tuple(tensor.shape) for name, tensor in wanted.items()}


VISUAL_QUERIES = OfficialConditioner(shapes=conditioner_shapes, settings=lambda tensors: None)
"""V2's."""
