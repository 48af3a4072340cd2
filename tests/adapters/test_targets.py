"""PEFT's own options for modules and layers mean here what they mean in a ``LoraConfig``."""

import pytest
import torch
from peft import LoraConfig as PeftLora
from peft import PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from llama_adapter import UserError, ZeroInitConfig
from llama_adapter.adapters.layer import ZeroInitLayer
from tests.adapters import tiny

IDS = torch.tensor([[1, 5, 9, 30, 7]])


def adapted_paths(model):
    return {
        name.removeprefix("base_model.model.")
        for name, module in model.named_modules()
        if isinstance(module, BaseTunerLayer)
    }


def ours(base=None, **options):
    config = ZeroInitConfig(**{"prompt_length": 0, "deltas": ["lora"], **options})
    return get_peft_model(base or tiny.llama(), config).eval()


FORMS = {
    "names": {"target_modules": ["q_proj", "down_proj"]},
    "a set of names": {"target_modules": {"q_proj"}},
    "whole paths": {"target_modules": ["model.layers.1.self_attn.q_proj", "lm_head"]},
    "a pattern": {"target_modules": r".*\.layers\.[12]\.mlp\..*_proj"},
    "all": {"target_modules": "all-linear"},
    "all in capitals": {"target_modules": "All-Linear"},
    "a layer": {"target_modules": ["q_proj"], "layers_to_transform": 2},
    "the first layer": {"target_modules": ["q_proj"], "layers_to_transform": 0, "layers_pattern": "layers"},
    "layers": {"target_modules": ["q_proj"], "layers_to_transform": [0, 3], "layers_pattern": ["layers"]},
    "all but names": {"target_modules": "all-linear", "exclude_modules": ["q_proj", "mlp.down_proj"]},
    "all but a pattern": {"target_modules": "all-linear", "exclude_modules": r".*layers\.0\..*"},
    "beside saved modules": {"target_modules": "all-linear", "modules_to_save": ["lm_head", "up_proj"]},
}


@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers` to `True`:UserWarning")  # of lm_head
@pytest.mark.parametrize("form", FORMS)
def test_the_same_maps_as_a_lora_of_peft(form, tmp_path):
    model = ours(**FORMS[form])
    paths = adapted_paths(model)
    assert paths
    assert paths == adapted_paths(get_peft_model(tiny.llama(), PeftLora(**FORMS[form])))
    tiny.disturb(model)
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(tiny.llama(), tmp_path).eval()
    assert adapted_paths(again) == paths
    torch.testing.assert_close(again(IDS).logits, model(IDS).logits)


def test_layers_are_those_of_all_parts():
    model = ours(prompt_length=3, deltas=["bias"], norms={"final_norm": False}, layers_to_transform=[1, 2])
    layers = {path.split(".")[2] for path in adapted_paths(model)}
    assert layers == {"1", "2"}
    by_preset = ZeroInitConfig(preset="v2", layers_to_transform=[0])
    assert by_preset.prompt_layers is None


def test_excluded_modules_get_no_part_of_any_kind():
    model = ours(prompt_length=3, deltas=["bias"], norms=True, exclude_modules=["self_attn", "norm"])
    paths = adapted_paths(model)
    assert not any(path.endswith(("prompt_attention", "model.norm")) for path in paths)
    assert "model.layers.0.self_attn.k_proj" in paths
    assert "model.layers.0.input_layernorm" in paths


class Plain(nn.Module):
    """No layers, no config, no attention."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.norm = nn.LayerNorm(8)
        self.second = nn.Linear(8, 3)

    def forward(self, x):
        return self.second(self.norm(self.first(x)))


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["first"]},
        {"target_modules": "all-linear", "deltas": ["output_scale", "bias"], "norms": True},
        {"deltas": [{"kind": "bias", "targets": ["second"]}], "norms": {"targets": ["norm"]}},
        {"target_modules": ["first"], "modules_to_save": ["second"]},
    ],
)
def test_a_model_without_layers(options, tmp_path):
    torch.manual_seed(0)
    base, x = Plain(), torch.randn(4, 6)
    bare = base(x)
    model = ours(base, **options)
    assert torch.equal(model(x), bare)
    model.train()(x).square().sum().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    tiny.disturb(model.eval())
    model.save_pretrained(tmp_path)
    torch.manual_seed(0)
    again = PeftModel.from_pretrained(Plain(), tmp_path).eval()
    want = model(x)
    torch.testing.assert_close(again(x), want)
    torch.testing.assert_close(model.merge_and_unload()(x), want, atol=1e-4, rtol=1e-4)


WRONG = [
    ({"target_modules": ["q_prj"]}, r"target_modules names \['q_prj'\], .*Use some of \['down_proj'"),
    ({"target_modules": ["q_proj", "norm"]}, r"target_modules names \['norm'\], which are no linear maps"),
    ({"target_modules": ".*nothing"}, r"target_modules names \['\.\*nothing'\]"),
    (
        {"target_modules": ["q_proj"], "deltas": [{"kind": "bias", "targets": ["mlp"]}]},
        "for deltas without targets of their own",
    ),
    ({"target_modules": ["q_proj"], "deltas": [], "prompt_length": 2}, "there are none"),
    ({"layers_pattern": "layers"}, "says what layers_to_transform counts. Set both"),
    (
        {"layers_to_transform": [0], "layers_pattern": "blocks"},
        "layers_pattern='blocks' names no",
    ),
    ({"layers_to_transform": [0], "delta_layers": 1}, r"Both layers_to_transform=\[0\] and delta_layers=1"),
    ({"layers_to_transform": [7]}, r"layers_to_transform=\[7\] does not fit"),
    ({"target_modules": ["q_proj"], "exclude_modules": ["self_attn.q_proj"]}, "No modules were targeted"),
]


@pytest.mark.parametrize(("options", "message"), WRONG)
def test_what_has_no_say_or_fits_nothing_is_an_error(options, message):
    with pytest.raises(ValueError, match=message):
        ours(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"names \['attention', 'mlp'\], which these layers do not have. Use target_modules"),
        ({"prompt_length": 2}, "cannot carry prompts"),
        ({"layers_to_transform": [0]}, r"came for Plain, which has no layers"),
        ({"delta_layers": 1}, "delta_layers=1 came for Plain, which has no layers"),
    ],
)
def test_a_model_without_layers_refuses_what_is_about_layers(options, message):
    with pytest.raises(UserError, match=message):
        ours(Plain(), **options)


class TestWeightTying:
    """Embeddings that share their weights with the head."""

    def base(self):
        return tiny.llama(tie_word_embeddings=True)

    @pytest.mark.parametrize("name", ["embed_tokens", "lm_head"])
    def test_saved_modules_stay_tied(self, name, tmp_path):
        model = ours(self.base(), modules_to_save=[name], ensure_weight_tying=True)
        embeddings, head = model.base_model.model.model.embed_tokens, model.base_model.model.lm_head
        own = embeddings.modules_to_save["default"].weight
        with torch.no_grad():
            own.add_(0.3 * torch.randn_like(own))
        assert head.modules_to_save["default"].weight.data_ptr() == own.data_ptr()
        want = model(IDS).logits
        model.save_pretrained(tmp_path)
        again = PeftModel.from_pretrained(self.base(), tmp_path).eval()
        torch.testing.assert_close(again(IDS).logits, want)
        torch.testing.assert_close(model.merge_and_unload()(IDS).logits, want)

    @pytest.mark.filterwarnings("ignore:You have requested `ensure_weight_tying`:UserWarning")  # as with LoRA
    def test_trained_tokens_stay_tied(self):
        model = ours(self.base(), trainable_token_indices=[1, 5], ensure_weight_tying=True)
        embeddings, head = model.base_model.model.model.embed_tokens, model.base_model.model.lm_head
        delta = embeddings.token_adapter.trainable_tokens_delta["default"]
        assert head.token_adapter.trainable_tokens_delta["default"] is delta

    def test_deltas_cannot_be_tied(self):
        with pytest.raises(UserError, match="embeddings, which take none"):
            ours(self.base(), target_modules=["lm_head"], ensure_weight_tying=True)

    def test_an_untied_model_says_so(self):
        with pytest.warns(UserWarning, match="no tied modules were found"):
            ours(modules_to_save=["lm_head"], ensure_weight_tying=True)


def test_sizes_are_those_of_the_map():
    for layer in ours().modules():
        if isinstance(layer, ZeroInitLayer):
            assert (layer.in_features, layer.out_features) == layer.weight.shape[::-1]
