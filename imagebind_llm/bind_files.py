"""The bind network in official files, for `convert --kind imagebind-llm`.

Dimensions: H hidden size of the language model.
"""

from dataclasses import replace

import torch

from imagebind_llm.bind import BindConfig, BindNetwork, official_name, our_name
from llama_adapter.checkpoints.conditioner import OfficialConditioner
from llama_adapter.checkpoints.names import NamedTensors


def bind_shapes(tensors: NamedTensors, hidden_size: int) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of the network.

    Args:
        tensors: a file's tensors.
        hidden_size: H.

    Raises:
        UserError: there is no bind network among them.
    """
    with torch.device("meta"):
        wanted = BindNetwork(replace(BindConfig.of_official(tensors), hidden_size=hidden_size)).state_dict()
    return {official_name(name): tuple(tensor.shape) for name, tensor in wanted.items()}


BIND_NETWORK = OfficialConditioner(
    shapes=bind_shapes, settings=BindConfig.of_official, ours=our_name, official=official_name
)
"""ImageBind-LLM's."""
