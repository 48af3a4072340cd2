import pytest
import torch
from torch import nn

from llama_adapter import UserError, ZeroInitConfig
from llama_adapter.adapters.deltas import LoraConfig, parse_delta
from llama_adapter.adapters.linear import ZeroInitLinear, plan_deltas
from tests.adapters import tiny

STACK = "model.layers"


def disturbed(base, *kinds):
    layer = ZeroInitLinear(base)
    for kind in kinds:
        layer.add_delta("default", parse_delta(kind))
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    layer.set_adapter("default")
    return layer


def test_deltas_apply_in_the_order_of_the_config():
    base = nn.Linear(6, 4, bias=False)
    x = torch.randn(3, 6)
    layer = disturbed(base, "output_scale", "bias")
    scale, bias = (
        layer.get_submodule(f"zero_init_{kind}.default").value for kind in ("output_scale", "bias")
    )
    torch.testing.assert_close(layer(x), base(x) * scale + bias)
    layer = disturbed(base, "bias", "output_scale")
    scale, bias = (
        layer.get_submodule(f"zero_init_{kind}.default").value for kind in ("output_scale", "bias")
    )
    torch.testing.assert_close(layer(x), (base(x) + bias) * scale)


def test_input_scale_enters_the_map():
    layer = disturbed(nn.Linear(6, 4), "input_scale")
    x = torch.randn(3, 6)
    scaled = x * layer.get_submodule("zero_init_input_scale.default").value
    torch.testing.assert_close(layer(x), layer.base_layer(scaled))


def test_prompts_see_bias_and_scale_but_no_lora():
    layer = disturbed(nn.Linear(6, 4), "input_scale", "bias", "lora")
    x = torch.randn(3, 6)
    with_lora, for_prompts = layer(x), layer.forward_prompts(x)
    lora = layer.get_submodule("zero_init_lora.default")
    torch.testing.assert_close(with_lora, for_prompts + x @ lora.down.T @ lora.up.T)


def test_disabled_adapters_leave_the_map_as_it_was():
    layer = disturbed(nn.Linear(6, 4), "bias", "lora")
    x = torch.randn(3, 6)
    layer.enable_adapters(False)
    assert torch.equal(layer(x), layer.base_layer(x))


def test_a_deleted_adapter_can_be_added_again():
    layer = disturbed(nn.Linear(6, 4), "bias")
    layer.delete_adapter("default")
    layer.add_delta("default", parse_delta("bias"))
    layer.set_adapter("default")
    assert not layer.get_submodule("zero_init_bias.default").value.any()


def test_targets_choose_blocks_and_names():
    model = tiny.llama()

    def names(**options):
        plan = plan_deltas(model, STACK, [2], ZeroInitConfig(deltas=[LoraConfig(**options)]))
        return {name.removeprefix("model.layers.2.") for name in plan}

    attention = {f"self_attn.{x}_proj" for x in "qkvo"}
    assert names(targets=["attention"]) == attention
    assert names(targets=["attention"], exclude=["k_proj"]) == attention - {"self_attn.k_proj"}
    assert names(targets=["down_proj"]) == {"mlp.down_proj"}
    assert names() == attention | {"mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"}


def test_unknown_targets_and_repeated_kinds_are_errors():
    model = tiny.llama()
    with pytest.raises(
        UserError, match=r"'lora' delta names \['c_attn'\].* Use \['attention', 'mlp'\] or some of"
    ):
        plan_deltas(model, STACK, [0], ZeroInitConfig(deltas=[LoraConfig(targets=["c_attn"])]))
    with pytest.raises(UserError, match=r"Two 'lora' deltas target one linear map\. Use each kind once"):
        tiny.adapted(deltas=["lora", "lora"])


def test_a_map_without_floating_weight_is_adapted_in_float32():
    class Quantised(nn.Module):
        in_features, out_features = 6, 4

        def __init__(self):
            super().__init__()
            self.register_buffer("codes", torch.randint(-128, 127, (4, 6), dtype=torch.int8))

        def forward(self, x):
            return x @ (self.codes.float() / 64).T

    layer = disturbed(Quantised(), "bias", "lora")
    assert {p.dtype for p in layer.parameters()} == {torch.float32}
    layer(torch.randn(3, 6)).sum().backward()
    assert all(p.grad.any() for p in layer.parameters())
