"""The layouts' tables: one name for one tensor, both ways."""

import pytest

from llama_adapter.checkpoints.adapter_layouts import LAYOUTS, pairs


@pytest.mark.parametrize("kind", LAYOUTS)
def test_no_name_stands_for_two_tensors(kind):
    found = pairs(LAYOUTS[kind], 3)
    assert len({pair.official for pair in found}) == len({pair.ours for pair in found}) == len(found)


@pytest.mark.parametrize(
    ("kind", "official", "change"),
    [
        ("adapter-v2", "layers.0.attention.wq.bias", "query_rows"),
        ("adapter-v2", "layers.0.attention.lora_wk_l2.weight", "key_rows"),
        ("adapter-v2", "layers.0.attention.lora_wk_l1.weight", "same"),
        ("adapter-v2", "layers.0.attention.wo.bias", "same"),
        ("adapter-v2-chat", "layers.0.attention.wk_bias", "key_rows"),
        ("adapter-v2-chat", "layers.0.attention.wq_scale", "same"),
        ("adapter-v1", "layers.0.attention.gate", "gate"),
    ],
)
def test_rows_are_reordered_just_where_the_rotation_acts(kind, official, change):
    (found,) = [pair for pair in pairs(LAYOUTS[kind], 1) if pair.official == official]
    assert found.change == change
