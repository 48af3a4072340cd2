"""Folding deltas and norms into the base gives a plain model that computes the same."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import get_peft_model
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaForCausalLM, MistralConfig, MistralForCausalLM
from transformers.pytorch_utils import Conv1D

from llama_adapter import ZeroInitConfig
from llama_adapter.adapters.layer import ZeroInitLayer
from llama_adapter.errors import UserError
from tests.tiny import tiny_llama

KINDS = ["bias", "output_scale", "input_scale", "lora"]
IDS = torch.tensor([[1, 5, 9, 30, 7]])


def stirred(model):
    """The model with every trained parameter away from its start."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return model.eval()


def adapted(base=None, **options):
    config = ZeroInitConfig(task_type="CAUSAL_LM", prompt_length=0, **options)
    return stirred(get_peft_model(base or tiny_llama(), config))


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_merged_equals_adapted_for_any_parts_in_any_order(data):
    kinds = data.draw(st.permutations(KINDS))[: data.draw(st.integers(1, 4))]
    deltas = [
        {
            "kind": kind,
            "targets": data.draw(st.sampled_from([["attention"], ["mlp"], ["q_proj", "down_proj"]])),
        }
        for kind in kinds
    ]
    layers = data.draw(st.sampled_from([None, 1, [0]]))
    base = tiny_llama(tie_word_embeddings=data.draw(st.booleans()), attention_bias=data.draw(st.booleans()))
    model = adapted(base, deltas=deltas, norms=data.draw(st.booleans()), delta_layers=layers)
    want = model(IDS).logits
    merged = model.merge_and_unload()
    torch.testing.assert_close(merged(IDS).logits, want, atol=2e-4, rtol=1e-4)
    assert not any(isinstance(module, ZeroInitLayer) for module in merged.modules())
    again = LlamaForCausalLM(copy.deepcopy(merged.config))  # the config alone gives every bias its place
    again.load_state_dict(merged.state_dict())


def test_prompts_stay_unmergeable_and_nothing_changes():
    model = stirred(get_peft_model(tiny_llama(), ZeroInitConfig(preset="v2", task_type="CAUSAL_LM")))
    want = model(IDS).logits
    with pytest.raises(NotImplementedError, match="softmax of their own"):
        model.merge_and_unload()
    assert torch.equal(model(IDS).logits, want)


def test_a_model_without_a_place_for_a_bias_is_refused_untouched():
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2, "num_key_value_heads": 1}
    base = MistralForCausalLM(MistralConfig(vocab_size=40, num_hidden_layers=1, **sizes))
    model = adapted(base, deltas=["bias"])
    want = model(IDS).logits
    with pytest.raises(UserError, match="MistralForCausalLM has no place for 7 biases"):
        model.merge_and_unload()
    assert torch.equal(model(IDS).logits, want)


def test_only_the_switch_that_is_needed_is_set():
    merged = adapted(deltas=[{"kind": "bias", "targets": ["q_proj"]}]).merge_and_unload()
    assert (merged.config.attention_bias, merged.config.mlp_bias) == (True, False)
    layer = merged.model.layers[0]
    assert not layer.self_attn.k_proj.bias.any()
    assert layer.mlp.up_proj.bias is None


def test_transposed_maps_merge_too():
    base = GPT2LMHeadModel(GPT2Config(vocab_size=40, n_embd=16, n_layer=1, n_head=2, n_positions=16))
    assert isinstance(base.transformer.h[0].mlp.c_fc, Conv1D)
    model = adapted(base, deltas=["lora", "input_scale", "bias"])
    want = model(IDS).logits
    torch.testing.assert_close(model.merge_and_unload()(IDS).logits, want, atol=1e-4, rtol=1e-4)


def test_quantised_maps_are_refused():
    model = adapted(deltas=["lora"])

    class Quantised(nn.Linear):
        """Stands for a map whose weight is no plain matrix."""

    layer = model.base_model.model.model.layers[0].self_attn.q_proj
    layer.base_layer.__class__ = Quantised
    with pytest.raises(UserError, match="A Quantised cannot take deltas"):
        model.merge_and_unload()


def test_one_of_two_adapters_can_be_merged():
    model = adapted(deltas=["output_scale"])
    model.add_adapter("other", ZeroInitConfig(task_type="CAUSAL_LM", prompt_length=0, deltas=["lora"]))
    stirred(model)
    model.set_adapter("other")
    want = model(IDS).logits
    torch.testing.assert_close(model.merge_and_unload()(IDS).logits, want, atol=1e-4, rtol=1e-4)


def test_a_whole_trained_module_is_merged_as_well():
    model = adapted(deltas=["lora"], modules_to_save=["lm_head"])
    want = model(IDS).logits
    merged = model.merge_and_unload()
    torch.testing.assert_close(merged(IDS).logits, want, atol=1e-4, rtol=1e-4)
    assert type(merged.lm_head) is nn.Linear
