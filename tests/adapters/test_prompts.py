import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_adapter.adapters.prompts import PromptLayer, attend_to_prompts
from tests.adapters import tiny


def prompt_layers(model):
    return [module for module in model.modules() if isinstance(module, PromptLayer)]


def published_formula(query, keys, values, gate, scale):
    """Scores over prompts in a softmax of their own, probabilities times the gate, as the paper writes it."""
    return gate * (query @ keys.transpose(-1, -2) * scale).softmax(-1) @ values


@settings(max_examples=30, deadline=None)
@given(
    batch=st.integers(1, 3),
    groups=st.integers(1, 3),
    per_group=st.integers(1, 3),
    positions=st.integers(1, 5),
    length=st.integers(1, 6),
    seed=st.integers(0, 99),
)
def test_folding_the_gate_into_values_is_the_published_formula(
    batch, groups, per_group, positions, length, seed
):
    generator = torch.Generator().manual_seed(seed)
    heads, size = groups * per_group, 8
    query = torch.randn(batch, heads, positions, size, generator=generator)
    keys, values = torch.randn(2, 1, groups, length, size, generator=generator)
    keys, values = (x.repeat_interleave(per_group, 1).expand(batch, -1, -1, -1) for x in (keys, values))
    gate = torch.tanh(torch.randn(heads, 1, 1, generator=generator))
    got = attend_to_prompts(query, keys, values * gate, scaling=0.3)
    torch.testing.assert_close(got, published_formula(query, keys, values, gate, 0.3))


def test_soft_cap_bounds_the_scores():
    query, keys, values = torch.randn(3, 1, 2, 4, 8).unbind()
    got = attend_to_prompts(query, keys, values, scaling=0.5, softcap=2.0)
    scores = 2.0 * torch.tanh(query @ keys.transpose(-1, -2) * 0.5 / 2.0)
    torch.testing.assert_close(got, scores.softmax(-1) @ values)
    torch.testing.assert_close(
        attend_to_prompts(query, keys, values, softcap=1e6),
        attend_to_prompts(query, keys, values),
        atol=1e-4,
        rtol=0,
    )


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
