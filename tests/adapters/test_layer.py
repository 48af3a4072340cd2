import pytest
from torch import nn

from llama_adapter.adapters.layer import ZeroInitLayer, active_in, wrap_once
from llama_adapter.adapters.norms import ZeroInitNorm


def test_a_module_is_wrapped_once():
    parent = nn.Sequential(nn.LayerNorm(4))
    layer = wrap_once(parent, "0", parent[0], ZeroInitNorm)
    assert parent[0] is layer
    assert wrap_once(parent, "0", layer, ZeroInitNorm) is layer


def test_disabled_layers_have_no_active_adapter():
    layer = ZeroInitNorm(nn.LayerNorm(4))
    layer.add_copy("default")
    layer.set_adapter("default")
    assert active_in(layer) == ["default"]
    layer.enable_adapters(False)
    assert active_in(layer) == []


def test_layers_refuse_to_merge():
    with pytest.raises(NotImplementedError, match=r"Adapters \['x'\] do not merge.*Keep them attached"):
        ZeroInitLayer().merge(adapter_names=["x"])
