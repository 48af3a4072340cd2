import pytest
from peft import get_peft_model
from torch import nn

from llama_adapter import ZeroInitConfig
from llama_adapter.adapters.layer import ZeroInitLayer, active_in, wrap_once
from llama_adapter.adapters.norms import ZeroInitNorm
from llama_adapter.adapters.prompts import PromptLayer
from tests.tiny import tiny_llama


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
    config = ZeroInitConfig(prompt_length=2, task_type="CAUSAL_LM")
    model = get_peft_model(tiny_llama(), config, adapter_name="x")
    layer = next(module for module in model.modules() if isinstance(module, PromptLayer))
    with pytest.raises(
        NotImplementedError, match=r"Adapters \['x'\] have gated prompts and do not merge.*Keep them attached"
    ):
        layer.merge(adapter_names=["x"])
    layer.merge(adapter_names=["y"])  # has no part here, as in PEFT


def test_a_layer_that_says_nothing_of_folding_refuses_to_merge(monkeypatch):
    layer = ZeroInitLayer()
    monkeypatch.setattr(ZeroInitLayer, "has_adapter", lambda self, name: True)
    with pytest.raises(NotImplementedError, match=r"ZeroInitLayer does not say what \['x'\] fold into"):
        layer.merge(adapter_names=["x"])
