"""Folding deltas and norms into the base gives a plain model that computes the same."""

import copy

import accelerate
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig as PeftLora
from peft import get_peft_model
from torch import nn
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPTJConfig,
    GPTJForCausalLM,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    StableLmConfig,
    StableLmForCausalLM,
    Starcoder2Config,
    Starcoder2ForCausalLM,
    ViTConfig,
    ViTModel,
)
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


def adapted(base=None, task="CAUSAL_LM", **options):
    config = ZeroInitConfig(task_type=task, prompt_length=0, **options)
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


SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2, "num_hidden_layers": 1}
GROUPED = {**SIZES, "vocab_size": 40, "num_key_value_heads": 1}
WITHOUT_A_PLACE = {
    "mistral": lambda: MistralForCausalLM(MistralConfig(**GROUPED)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**GROUPED)),
    "gemma3": lambda: Gemma3ForCausalLM(
        Gemma3TextConfig(**GROUPED, head_dim=8, layer_types=["full_attention"])
    ),
    "gptj": lambda: GPTJForCausalLM(
        GPTJConfig(vocab_size=40, n_embd=16, n_layer=1, n_head=2, n_positions=16, rotary_dim=4)
    ),
}


@pytest.mark.parametrize("family", WITHOUT_A_PLACE)
def test_biases_without_a_place_in_files_compute_but_are_not_saved(family, tmp_path):
    base = WITHOUT_A_PLACE[family]()
    before = copy.deepcopy(base.config).to_dict()
    model = adapted(base, deltas=["bias"])
    want = model(IDS).logits
    merged = copy.deepcopy(model.merge_and_unload())
    torch.testing.assert_close(merged(IDS).logits, want, atol=1e-4, rtol=1e-4)
    assert merged.config.to_dict() == before
    with pytest.raises(UserError, match=r"cannot store \d+ merged biases such as .*Save the adapter instead"):
        merged.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())


BIASED = {
    "llama": lambda: tiny_llama(),
    "stablelm": lambda: StableLmForCausalLM(StableLmConfig(**GROUPED)),
    "starcoder2": lambda: Starcoder2ForCausalLM(Starcoder2Config(**GROUPED, use_bias=False)),
    "gemma3": WITHOUT_A_PLACE["gemma3"],
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(vocab_size=40, n_embd=16, n_layer=1, n_head=2, n_positions=16)
    ),
    "vit": lambda: ViTModel(ViTConfig(**SIZES, image_size=16, patch_size=8, qkv_bias=False)),
}


@pytest.mark.parametrize("family", BIASED)
def test_biases_with_a_place_survive_a_saved_model(family, tmp_path):
    """Whatever a config's switch for them is called, and with the zeros of the maps that share it."""
    base = BIASED[family]()
    site = "c_attn" if family == "gpt2" else "q_proj"
    model = adapted(base, deltas=[{"kind": "bias", "targets": [site]}], task=None)
    given = IDS if family != "vit" else torch.randn(1, 3, 16, 16)
    want = model(given)[0]
    merged = model.merge_and_unload()
    merged.save_pretrained(tmp_path)
    again, found = type(merged).from_pretrained(tmp_path, output_loading_info=True)
    assert not found["unexpected_keys"]
    torch.testing.assert_close(again.eval()(given)[0], want, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("parts", [{"deltas": [kind]} for kind in KINDS] + [{"norms": True}])
def test_a_safe_merge_refuses_what_is_not_finite_and_changes_nothing(parts, value):
    model = adapted(**parts)
    before = {name: p.clone() for name, p in model.named_parameters()}
    last = [p for p in model.parameters() if p.requires_grad][-1]
    with torch.no_grad():
        last.view(-1)[0] = value
    for merge in (model.merge_adapter, model.merge_and_unload):
        with pytest.raises(ValueError, match="NaNs or infinities"):
            merge(safe_merge=True)
        assert all(torch.equal(before[name], p) for name, p in model.named_parameters() if p is not last)
    model.merge_adapter()  # as PEFT's own: without the question it is not asked


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_a_live_merge_computes_the_same_and_is_taken_out_to_the_bit(data):
    kinds = data.draw(st.permutations(KINDS))[: data.draw(st.integers(1, 4))]
    base = tiny_llama(attention_bias=data.draw(st.booleans()))
    model = adapted(base, deltas=kinds, norms=data.draw(st.booleans()))
    with model.disable_adapter():
        bare = model(IDS).logits
    want, names = model(IDS).logits, list(model.state_dict())
    model.merge_adapter(safe_merge=data.draw(st.booleans()))
    assert all(layer.merged for layer in model.modules() if isinstance(layer, ZeroInitLayer))
    torch.testing.assert_close(model(IDS).logits, want, atol=2e-4, rtol=1e-4)
    model.unmerge_adapter()
    assert torch.equal(model(IDS).logits, want)
    assert list(model.state_dict()) == names
    model.merge_adapter()
    with model.disable_adapter():  # takes merged adapters out, as PEFT's own layers do
        assert torch.equal(model(IDS).logits, bare)


@pytest.mark.filterwarnings("ignore:Already following adapters were merged:UserWarning")  # PEFT's own
class TestTwoAdapters:
    """Merged one after the other, or one of them alone."""

    @pytest.fixture
    def model(self):
        model = adapted(deltas=["input_scale", "bias"], norms=True)
        model.add_adapter(
            "other", ZeroInitConfig(task_type="CAUSAL_LM", prompt_length=0, deltas=["output_scale", "lora"])
        )
        model.base_model.set_adapter(["default", "other"])
        return stirred(model)

    def test_one_after_the_other(self, model):
        want = model(IDS).logits
        model.merge_adapter(["default"])
        torch.testing.assert_close(model(IDS).logits, want, atol=2e-4, rtol=1e-4)
        model.merge_adapter(["other"])
        torch.testing.assert_close(model(IDS).logits, want, atol=2e-4, rtol=1e-4)
        model.unmerge_adapter()
        assert torch.equal(model(IDS).logits, want)

    @pytest.mark.filterwarnings("ignore:All adapters are already merged:UserWarning")  # PEFT's own
    def test_a_merged_one_can_be_merged_for_good(self, model):
        want = model(IDS).logits
        model.merge_adapter(["default"])
        merged = model.merge_and_unload()
        torch.testing.assert_close(merged(IDS).logits, want, atol=2e-4, rtol=1e-4)

    def test_unload_takes_a_merged_one_out(self, model):
        with model.disable_adapter():
            bare = model(IDS).logits
        model.merge_adapter()
        assert torch.equal(model.unload()(IDS).logits, bare)

    def test_switching_and_deleting(self, model):
        model.base_model.set_adapter("other")
        want = model(IDS).logits
        model.base_model.set_adapter("default")
        model.merge_adapter()
        with pytest.raises(ValueError, match="merged"):
            model.delete_adapter("default")
        with pytest.warns(UserWarning, match="Unmerging the model first"):
            model.set_adapter("other")
        assert torch.equal(model(IDS).logits, want)

    def test_rows_cannot_differ_while_one_is_merged(self, model):
        model.merge_adapter(["default"])
        with pytest.raises(UserError, match=r"while adapters are merged.*unmerge_adapter\(\) first"):
            model(IDS, adapter_names=["other"])

    def test_prompts_beside_it_keep_a_merge_out(self, model):
        model.add_adapter("prompts", ZeroInitConfig(task_type="CAUSAL_LM", prompt_length=3))
        model.base_model.set_adapter(["default", "prompts"])
        want = model(IDS).logits
        with pytest.raises(NotImplementedError, match="softmax of their own"):
            model.merge_adapter(["default"])
        assert torch.equal(model(IDS).logits, want)


@pytest.mark.filterwarnings("ignore:You are trying to modify a model with PEFT for a second time:UserWarning")
@pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute:UserWarning")
def test_a_map_that_holds_another_adapter_is_refused():
    base = get_peft_model(tiny_llama(), PeftLora(target_modules=["q_proj"], init_lora_weights=False))
    model = adapted(base.get_base_model(), deltas=["output_scale"])
    with pytest.raises(UserError, match="holds a Linear of another adapter"):
        model.merge_and_unload()


def test_offloaded_maps_merge(tmp_path):
    base = tiny_llama()
    want = adapted(copy.deepcopy(base), deltas=["bias", "lora"], norms=True)
    accelerate.cpu_offload(base, execution_device=torch.device("cpu"))
    model = get_peft_model(base, ZeroInitConfig(prompt_length=0, deltas=["bias", "lora"], norms=True)).eval()
    own = dict(model.named_parameters())
    for name, value in want.named_parameters():
        if "zero_init" in name:
            own[name].data.copy_(value)
    bare = copy.deepcopy(want).unload()(IDS).logits
    torch.testing.assert_close(model(IDS).logits, want(IDS).logits)
    model.merge_adapter()
    torch.testing.assert_close(model(IDS).logits, want(IDS).logits, atol=2e-4, rtol=1e-4)
    model.unmerge_adapter()
    with model.disable_adapter():
        assert torch.equal(model(IDS).logits, bare)


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
