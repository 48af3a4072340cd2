"""Official names beside ours."""

import json

import torch

from imagebind_llm.imagebind.model import ImageBindModel
from imagebind_llm.imagebind.official_names import official_tensors, text_mask
from tests.imagebind_llm.tiny import GOLDEN, IMAGEBIND, official_weights, tiny_config


def test_names_are_all_of_the_published_ones():
    shapes = json.loads((GOLDEN / "imagebind_tiny_state_dict_shapes.json").read_text())
    assert {name: list(tensor.shape) for name, tensor in official_weights(*IMAGEBIND).items()} == shapes


def test_every_tensor_has_one_official_name():
    weights = ImageBindModel(tiny_config()).state_dict()
    names = official_tensors(weights)
    official = official_weights(*IMAGEBIND, "point")
    mask = "modality_preprocessors.text.mask"
    assert {tensor.name for tensor in names.values()} == official.keys() - {mask}
    assert len({tensor.name for tensor in names.values()}) == len(weights)
    for name, tensor in names.items():
        assert torch.equal(tensor.to_ours(tensor.to_official(weights[name])), weights[name])
        assert tensor.to_official(weights[name]).shape == official[tensor.name].shape
    assert torch.equal(text_mask(77), official[mask])
