"""Meta's names and transformers' names of one LLaMA, against the model itself."""

from llama_adapter.checkpoints.names import base_names
from tests.tiny import tiny_llama


def test_every_weight_of_the_model_has_one_official_name():
    names = base_names(2)
    assert set(names.values()) == set(tiny_llama().state_dict())
    assert len(set(names)) == len(names)
    assert names["layers.1.feed_forward.w2.weight"] == "model.layers.1.mlp.down_proj.weight"
