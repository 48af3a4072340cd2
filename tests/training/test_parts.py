"""The parts of a model that train: found by name, counted, saved beside the adapter and compared."""

import pytest
from peft import get_peft_model

from llama_adapter import UserError, ZeroInitConfig
from llama_adapter.conditioning import GlobalFeaturesConfig, make_conditioner
from llama_adapter.training.parts import TrainedParts, part_of
from tests.tiny import tiny_llama


def conditioner(width=4):
    return make_conditioner(GlobalFeaturesConfig(hidden_size=16, feature_width=width, inner_width=3))


def adapted():
    config = ZeroInitConfig(
        task_type="CAUSAL_LM", prompt_length=2, deltas=["bias", {"kind": "lora", "rank": 2}], norms=True
    )
    return get_peft_model(tiny_llama(), config)


def test_every_parameter_that_trains_has_a_part():
    parts = TrainedParts(adapted(), conditioner())
    found = {
        part_of(name, parts.adapter_names)
        for name, weight in parts.named_parameters()
        if weight.requires_grad
    }
    assert found == {"prompt", "gate", "bias", "lora", "norm", "conditioner"}
    frozen = [
        part_of(name, {"default"}) for name, weight in parts.named_parameters() if not weight.requires_grad
    ]
    assert frozen
    assert set(frozen) == {None}


def test_counts_are_those_of_the_parameters():
    parts = TrainedParts(adapted(), conditioner())
    total = sum(weight.numel() for _, weight in parts.named_parameters() if weight.requires_grad)
    assert sum(parts.trainable().values()) == total
    assert set(parts.trainable()) == {"adapter", "conditioner"}


def test_what_lies_beside_the_adapter_comes_back(tmp_path):
    saved, loaded = (TrainedParts(adapted(), conditioner()) for _ in range(2))
    saved.save_beside(tmp_path)
    loaded.load_beside(tmp_path)
    pairs = zip(saved.conditioner.parameters(), loaded.conditioner.parameters(), strict=True)
    assert all((one == other).all() for one, other in pairs)
    loaded.check_same_beside(tmp_path)


def test_another_conditioner_is_named_setting_by_setting(tmp_path):
    TrainedParts(adapted(), conditioner()).save_beside(tmp_path)
    with pytest.raises(UserError, match="feature_width: 4 there, 5 here"):
        TrainedParts(adapted(), conditioner(5)).check_same_beside(tmp_path)
    with pytest.raises(UserError, match="another conditioner"):
        TrainedParts(adapted()).check_same_beside(tmp_path)
