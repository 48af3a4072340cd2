import pytest
import torch

from llama_adapter.adapters.prompts import PromptLayer
from tests.adapters import tiny


def prompt_layers(model):
    return [module for module in model.modules() if isinstance(module, PromptLayer)]


def test_prompts_get_no_gradient_while_gates_are_zero_and_some_after():
    model = tiny.adapted(prompt_length=3)
    layers = prompt_layers(model)
    with torch.no_grad():
        for layer in layers:
            layer.zero_init_gate["default"].value.zero_()
    model(tiny.ids(), labels=tiny.ids()).loss.backward()
    assert all(not layer.zero_init_prompt["default"].value.grad.any() for layer in layers)
    assert all(layer.zero_init_gate["default"].value.grad.abs().min() > 0 for layer in layers)


def test_prompts_learn_after_an_evaluation_pass():
    model = tiny.adapted(prompt_length=3)
    for _ in range(2):
        with torch.no_grad():
            model(tiny.ids())
        model.zero_grad()
        model(tiny.ids(), labels=tiny.ids()).loss.backward()
        assert all(layer.zero_init_prompt["default"].value.grad.any() for layer in prompt_layers(model))


@pytest.mark.parametrize(
    ("options", "shape"),
    [({"gate": "head"}, (4, 1, 1)), ({"gate": "scalar"}, (1, 1, 1))],
)
def test_gate_shapes(options, shape):
    layer = prompt_layers(tiny.adapted(prompt_length=3, **options))[0]
    assert layer.zero_init_gate["default"].value.shape == shape
    assert layer.zero_init_prompt["default"].value.shape == (3, 64)


def test_new_gate_multiplies_outside_the_activation():
    layer = prompt_layers(tiny.adapted(prompt_length=3, new_gate=True))[0]
    gate, new = layer.zero_init_gate["default"].value, layer.zero_init_new_gate["default"].value
    torch.testing.assert_close(layer.effective_gate("default"), new * torch.tanh(gate))


def test_identity_gate_is_used_as_stored():
    layer = prompt_layers(tiny.adapted(prompt_length=3, gate_activation="identity"))[0]
    assert layer.effective_gate("default") is layer.zero_init_gate["default"].value


def test_one_prompt_adds_its_gated_value_whatever_its_key():
    """Softmax over one key is one: ImageBind-LLM's injection needs no code of its own."""
    model = tiny.adapted(prompt_length=1)
    layer = prompt_layers(model)[0]
    attention = model.base_model.model.model.layers[0].self_attn
    query = torch.randn(2, 4, 5, 16)
    values = attention.v_proj(layer.zero_init_prompt["default"].value).view(2, 16).repeat_interleave(2, 0)
    want = (values * torch.tanh(layer.zero_init_gate["default"].value).flatten()[:, None]).expand(2, 5, 4, 16)
    torch.testing.assert_close(layer.attend(attention, query, attention.scaling, None), want)


def test_two_active_adapters_add_up():
    from llama_adapter import ZeroInitConfig

    model = tiny.adapted(prompt_length=3)
    model.add_adapter("second", ZeroInitConfig(prompt_length=2))
    model.base_model.set_adapter(["default", "second"])
    tiny.disturb(model, seed=4)
    layer, attention = prompt_layers(model)[0], model.base_model.model.model.layers[0].self_attn
    query = torch.randn(1, 4, 5, 16)
    both = layer.attend(attention, query, 0.25, None)
    alone = []
    for name in ("default", "second"):
        model.base_model.set_adapter(name)
        alone.append(layer.attend(attention, query, 0.25, None))
    torch.testing.assert_close(both, alone[0] + alone[1])


def test_random_gates_are_an_option_and_start_elsewhere_than_the_base():
    from peft import get_peft_model

    from llama_adapter import ZeroInitConfig

    base = tiny.llama()
    want = base(tiny.ids()).logits
    model = get_peft_model(base, ZeroInitConfig(prompt_length=3, gate_init_std=1.0)).eval()
    assert not torch.allclose(model(tiny.ids()).logits, want, atol=1e-4)
