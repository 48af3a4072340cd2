"""The visual part's shapes follow from a few of its tensors."""

import torch

from llama_adapter.checkpoints.conditioner import conditioner_shapes
from tests.checkpoints.golden_cases import adapter_tensors


def test_shapes_are_those_of_the_original():
    tensors = adapter_tensors("v21_lora_bias")
    visual = {name: t for name, t in tensors.items() if name.startswith(("clip_proj", "visual_"))}
    wanted = {name: tuple(tensor.shape) for name, tensor in visual.items()}
    assert conditioner_shapes(tensors, hidden_size=64) == wanted


def test_a_missing_measure_leaves_every_name_in_the_list():
    tensors = adapter_tensors("v21_lora_bias")
    whole = conditioner_shapes(tensors, hidden_size=64)
    without = {name: t for name, t in tensors.items() if name != "visual_query.weight"}
    assert conditioner_shapes(without, hidden_size=64).keys() == whole.keys()
    assert isinstance(tensors["clip_proj.weight"], torch.Tensor)
