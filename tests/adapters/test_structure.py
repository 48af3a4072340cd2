import pytest
import torch
from transformers import (
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPModel,
    GPT2Config,
    GPT2Model,
    MixtralConfig,
    MixtralModel,
)

from llama_adapter import UserError
from llama_adapter.adapters import structure
from tests.adapters import tiny

SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}


def clip():
    return CLIPModel(
        CLIPConfig(text_config=SMALL, vision_config={**SMALL, "image_size": 16, "patch_size": 8})
    )


@pytest.mark.parametrize(
    ("model", "stack"),
    [
        (tiny.llama(), "model.layers"),
        (GPT2Model(GPT2Config(n_embd=32, n_layer=2, n_head=4)), "h"),
        (BertModel(BertConfig(**SMALL)), "encoder.layer"),
    ],
)
def test_the_layer_stack_is_found(model, stack):
    assert structure.find_layer_stack(model) == stack
    assert [site.layer for site in structure.attention_sites(model, stack)] == list(
        range(len(model.get_submodule(stack)))
    )


def test_several_stacks_need_a_choice():
    with pytest.raises(
        UserError, match=r"CLIPModel has 2 layer stacks.*text_model.*vision_model.*Set layer_stack"
    ):
        structure.find_layer_stack(clip())
    stacks = [name for name, _ in clip().named_modules() if name.endswith("encoder.layers")]
    assert structure.find_layer_stack(clip(), stacks[1]) == stacks[1]
    with pytest.raises(UserError, match=r"layer_stack='decoder' is no layer stack.*Use one of"):
        structure.find_layer_stack(clip(), "decoder")


@pytest.mark.parametrize(
    ("layers", "want"),
    [(None, [0, 1, 2, 3]), (3, [1, 2, 3]), (4, [0, 1, 2, 3]), (-1, [1, 2, 3]), ([2, 0, 2], [0, 2])],
)
def test_layers_count_from_the_top(layers, want):
    assert structure.layer_indices(tiny.llama(), "model.layers", "prompt_layers", layers) == want


@pytest.mark.parametrize("layers", [0, 5, -4, [4], [-1], []])
def test_layers_that_are_not_there_are_named(layers):
    with pytest.raises(
        UserError, match=r"prompt_layers=.* does not fit LlamaForCausalLM with its 4 layers\. Use"
    ):
        structure.layer_indices(tiny.llama(), "model.layers", "prompt_layers", layers)


def test_an_adapted_model_reads_like_its_base():
    base = tiny.llama()
    names = [name for name, _ in structure.base_modules(base)]
    linears = [site.name for site in structure.linear_sites(base, "model.layers")]
    model = tiny.adapted(base, preset="v21").base_model.model
    assert [name for name, _ in structure.base_modules(model)] == names
    assert [site.name for site in structure.linear_sites(model, "model.layers")] == linears


def test_experts_are_seen_and_routers_left_out():
    model = MixtralModel(MixtralConfig(**SMALL, vocab_size=97, num_key_value_heads=2, num_local_experts=2))
    assert structure.has_expert_parameters(model, "layers")
    assert {site.block for site in structure.linear_sites(model, "layers")} == {"attention"}
    assert not structure.has_expert_parameters(tiny.llama(), "model.layers")


def test_new_parameters_go_where_the_module_runs():
    assert structure.placement(torch.nn.Linear(2, 2, dtype=torch.bfloat16)) == (
        torch.device("cpu"),
        torch.bfloat16,
    )
    assert structure.placement(torch.nn.Identity()) == (torch.device("cpu"), torch.float32)
    offloaded = torch.nn.Linear(2, 2, device="meta")
    offloaded._hf_hook = type("Hook", (), {"execution_device": "cpu"})()
    assert structure.placement(offloaded)[0] == torch.device("cpu")
