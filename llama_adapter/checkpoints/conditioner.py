"""The visual part of official V2 files: which tensors it has, of which shapes.

It turns image features into what is added to the prompts (``conditioning.visual_queries``). Its tensors keep
their official names; a conversion keeps them whole beside the adapter, where ``load_conditioner`` reads them.

Dimensions: H hidden size of the LLaMA.
"""

from dataclasses import replace

import torch

from llama_adapter.checkpoints.names import NamedTensors
from llama_adapter.conditioning.visual_queries import VisualQueries, VisualQueriesConfig


def conditioner_shapes(tensors: NamedTensors, hidden_size: int) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of the visual part.

    Args:
        tensors: A file's tensors; depth and widths are read off a few of them.
        hidden_size: Hidden size H of the LLaMA.
    """
    config = replace(VisualQueriesConfig.of_tensors(tensors, num_heads=1), hidden_size=hidden_size)
    with torch.device("meta"):
        wanted = VisualQueries(config).state_dict()
    return {name: tuple(tensor.shape) for name, tensor in wanted.items()}
