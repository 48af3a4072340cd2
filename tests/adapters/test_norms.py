import pytest
import torch
from torch import nn

from llama_adapter import UserError
from llama_adapter.adapters.norms import NormConfig, ZeroInitNorm, plan_norms
from tests.adapters import tiny

STACK = "model.layers"


def test_a_copy_starts_equal_and_learns_alone():
    base = nn.LayerNorm(8)
    layer = ZeroInitNorm(base)
    layer.add_copy("default")
    layer.set_adapter("default")
    x = torch.randn(3, 8)
    assert torch.equal(layer(x), base(x))
    with torch.no_grad():
        layer.zero_init_norm["default"].weight.mul_(2)
    assert torch.equal(layer(x), base(x) * 2)
    layer.enable_adapters(False)
    assert torch.equal(layer(x), base(x))


def test_targets_and_the_final_norm():
    model = tiny.llama()
    every = plan_norms(model, STACK, [3], NormConfig())
    prefix = "model.layers.3."
    assert set(every) == {f"{prefix}input_layernorm", f"{prefix}post_attention_layernorm", "model.norm"}
    some = plan_norms(model, STACK, [3], NormConfig(targets=["input_layernorm"], final_norm=False))
    assert set(some) == {f"{prefix}input_layernorm"}
    assert plan_norms(model, STACK, [3], None) == {}


def test_unknown_norms_are_named():
    with pytest.raises(UserError, match=r"norms\.targets names \['ln_1'\].*Use some of \['input_layernorm'"):
        plan_norms(tiny.llama(), STACK, [0], NormConfig(targets=["ln_1"]))


def test_the_base_norms_stay_frozen():
    model = tiny.adapted(prompt_length=0, norms=True)
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert len(trained) == 9
    assert all("zero_init_norm.default" in name for name in trained)
