"""Which model a released folder holds, what it then has, and the way back to its settings files."""

import json

import pytest
import torch
from transformers import LlamaConfig

from llama_adapter.checkpoints.family import CONSOLIDATED, Family
from llama_adapter.checkpoints.model_files import open_model
from llama_adapter.errors import UserError
from sphinx_ft.official_files import stored_tensors
from sphinx_ft.official_settings import official_settings, released_code, sphinx_config
from sphinx_ft.variants import VARIANTS, variant_config
from tests.sphinx_ft.released import RELEASED, TEXTS, golden_settings, tiny_variant

SPECIAL = {
    "llama_ens": {
        "visual_proj.0.weight": (5120, 5632),
        "qformer_proj.0.weight": (5120, 768),
        "start_img": (1, 1, 5120),
        "tok_embeddings.weight": (32000, 5120),
        "layers.39.feed_forward.w2.weight": (5120, 13824),
        "clip.visual.proj": (1024, 768),
        "clip.visual.positional_embedding": (257, 1024),
        "openclip_convnext_xxl.stages.2.blocks.29.mlp.fc1.weight": (6144, 1536),
        "dinov2_vitg14.blocks.39.mlp.w12.weight": (8192, 1536),
        "dinov2_vitg14.blocks.0.attn.qkv.bias": (4608,),
        "dinov2_vitg14.pos_embed": (1, 1370, 1536),
        "qformer.query_tokens": (1, 32, 768),
        "qformer.vision_model.encoder.layers.38.mlp.fc1.weight": (6144, 1408),
    },
    "llama_ens_light": {
        "visual_proj.0.weight": (2048, 4608),
        "layers.21.attention.wk.weight": (256, 2048),
        "layers.0.feed_forward.w1.weight": (5632, 2048),
    },
    "mixtral_sparse_ens": {
        "visual_proj.0.weight": (4096, 5632),
        "layers.31.feed_forward.w2": (8 * 14336, 4096),
        "layers.0.feed_forward.gate.weight": (8, 4096),
        "layers.0.attention.wv.weight": (1024, 4096),
    },
}
"""Shapes that follow from the publishers' sizes of each part."""
BILLIONS = {"llama_ens": 16.42, "llama_ens_light": 3.09, "mixtral_sparse_ens": 50.1}
"""Language model (13.02, 1.10, 46.70) and encoders (3.37; 1.98 without CLIP and Q-Former) together."""


def like(code):
    """The variant whose tensors a model has, whatever its views are."""
    return (
        "llama_ens_light" if "light" in code else code.replace("5p2", "").replace("10", "").replace("5", "")
    )


@pytest.mark.parametrize("name", RELEASED)
def test_every_variant_has_the_tensors_of_its_files(name):
    kind = like(VARIANTS[name].llama_type)
    shapes = {one.name: one.shape for one in stored_tensors(variant_config(name), [])}
    assert {name: shapes.get(name) for name in SPECIAL[kind]} == SPECIAL[kind]
    total = sum(torch.Size(shape).numel() for shape in shapes.values()) / 1e9
    assert total == pytest.approx(BILLIONS[kind], rel=0.01)
    encoders = {name.split(".")[0] for name in shapes}
    assert ({"qformer", "clip", "qformer_proj"} <= encoders) == (kind != "llama_ens_light")
    assert {"openclip_convnext_xxl", "dinov2_vitg14", "visual_proj", "start_img", "end_img"} <= encoders
    assert released_code(variant_config(name)) == VARIANTS[name].llama_type


def opened(folder, settings=None, code=None, rows=64, width=16):
    """A released folder with some tensors of a language model."""
    folder.mkdir(exist_ok=True)
    tensors = {
        "llma.tok_embeddings.weight": torch.zeros(rows, width),
        "llma.layers.0.feed_forward.w1.weight": torch.zeros(24, width),
        "llma.output.weight": torch.zeros(rows, width),
    }
    torch.save({"model": tensors}, folder / "consolidated.00-of-01.model.pth")
    if settings:
        (folder / "config.json").write_text(json.dumps(settings))
    if code:
        (folder / "meta.json").write_text(json.dumps({"llama_type": code}))
    family = Family(
        model_type="sphinx",
        architecture="",
        files=CONSOLIDATED,
        owner="SPHINX",
        settings=("config.json", "meta.json"),
        settings_needed=False,
        config=variant_config,
        stored=stored_tensors,
        params=official_settings,
        prefix="llma.",
    )
    return open_model(folder, family, verify=False)


@pytest.mark.parametrize("gelu", [True, False])
def test_the_folder_s_own_settings_are_taken(gelu, tmp_path):
    settings = golden_settings("llama_ens5") | {"load_pretrained_visual_encoder": gelu, "rope_scaling": 0.25}
    config = sphinx_config(opened(tmp_path / "x", settings, "llama_ens5"), None, None)
    text = config.text_config
    assert (text.hidden_size, text.intermediate_size, text.num_hidden_layers) == (16, 24, 2)
    assert (text.max_position_embeddings, text.pad_token_id, text.tie_word_embeddings) == (3200, 0, False)
    assert text.rope_parameters == {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
    assert config.views == variant_config("sphinx-1k").views
    (clip,) = (one for one in config.encoders if one["kind"] == "clip")
    assert clip["settings"].get("quick_gelu", False) == gelu


def test_older_folders_have_no_settings_and_take_the_named_variant_s(tmp_path):
    config = sphinx_config(opened(tmp_path / "x", rows=70, width=2048), "sphinx-tiny-1k", None)
    assert config.text_config.num_hidden_layers == 22
    assert config.text_config.vocab_size == 70
    assert config.view_config.count == 5


def test_another_language_model_is_named_by_its_folder(tmp_path):
    TEXTS["internlm2"].save_pretrained(tmp_path / "base")
    config = sphinx_config(opened(tmp_path / "x", code="llama_ens_light"), None, str(tmp_path / "base"))
    assert config.text_config.intermediate_size == 56
    assert config.text_config.rope_parameters["rope_theta"] == 1e6
    assert config.text_config.vocab_size == 64
    TEXTS["mixtral"].save_pretrained(tmp_path / "other")
    with pytest.raises(UserError, match="those of a 'mixtral' model, but .* of sphinx-tiny is a 'llama'"):
        sphinx_config(opened(tmp_path / "x", code="llama_ens_light"), None, str(tmp_path / "other"))


def test_the_weight_of_the_balancing_loss_is_the_original_s(tmp_path):
    settings = golden_settings("mixtral_sparse_ens5") | {"load_balancing_weight": 0.04}
    config = sphinx_config(opened(tmp_path / "x", settings, "mixtral_sparse_ens5"), None, None)
    assert config.text_config.router_aux_loss_coef == pytest.approx(0.02)
    assert official_settings(config)["config.json"]["load_balancing_weight"] == pytest.approx(0.04)


@pytest.mark.parametrize(
    ("code", "variant", "base", "message"),
    [
        (None, None, None, "has no meta.json that names the model. Name it: --variant, one of: sphinx, "),
        (None, "sphinx-x-tiny", None, "'sphinx-x-tiny', of which no files were released. Use one of: sphinx"),
        ("llama_ens5", "sphinx", None, "'sphinx', a llama_ens, but meta.json in .* says 'llama_ens5'"),
        ("llama_adapter", None, None, "'llama_adapter', which is no released SPHINX"),
        ("llama_ens5", None, "sphinx-2k", "are those of a llama_ens10, but the files of a llama_ens5"),
    ],
)
def test_refuses_what_does_not_go_together(code, variant, base, message, tmp_path):
    if base:
        tiny_variant(base).save_pretrained(tmp_path / "base")
    official = opened(tmp_path / "x", golden_settings("llama_ens5"), code)
    with pytest.raises(UserError, match=message):
        sphinx_config(official, variant, str(tmp_path / "base") if base else None)


def hidden_size_of(params):
    """Meta's rule for the width of an MLP."""
    hidden = int(2 * 4 * params["dim"] / 3)
    if params["ffn_dim_multiplier"] is not None:
        hidden = int(params["ffn_dim_multiplier"] * hidden)
    return params["multiple_of"] * ((hidden + params["multiple_of"] - 1) // params["multiple_of"])


@pytest.mark.parametrize(
    ("hidden", "inner"), [(5120, 13824), (4096, 14336), (2048, 5632), (16, 24), (16, 25)]
)
def test_the_original_code_finds_the_width_of_the_mlps(hidden, inner):
    text = LlamaConfig(hidden_size=hidden, intermediate_size=inner, num_attention_heads=4)
    params = official_settings(variant_config("sphinx-tiny", text))["config.json"]
    assert hidden_size_of(params) == inner


def test_settings_that_never_were_official_come_back(tmp_path):
    config = tiny_variant("sphinx-1k")
    config.text_config.rope_parameters = {"rope_type": "linear", "rope_theta": 500.0, "factor": 8.0}
    config.encoders[1]["settings"]["quick_gelu"] = True
    config.save_pretrained(tmp_path / "base")
    made = official_settings(config)
    assert made["meta.json"] == {"llama_type": "llama_ens5"}
    assert made["config.json"]["rope_scaling"] == 1 / 8
    official = opened(tmp_path / "x", made["config.json"], made["meta.json"]["llama_type"])
    again = sphinx_config(official, None, str(tmp_path / "base"))
    assert again.text_config.rope_parameters == config.text_config.rope_parameters
    assert again.encoders == config.encoders


def changed(**others):
    config = tiny_variant("sphinx-tiny")
    for name, value in others.items():
        holder = config if hasattr(config, name) else config.text_config
        setattr(holder, name, value)
    return config


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (changed(image_places="placeholder"), "No released code runs a model with .*'placeholder'"),
        (changed(encoders=variant_config("sphinx-tiny").encoders[::-1]), "No released code runs a model"),
        (changed(head_dim=8), "4 heads of 8 for a hidden size of 16"),
        (changed(tie_word_embeddings=True), "No released|tie_word_embeddings=True"),
        (changed(rope_parameters={"rope_type": "llama3", "rope_theta": 1.0}), "of the type 'llama3'"),
    ],
)
def test_refuses_models_that_released_code_cannot_run(config, message):
    if config.tie_word_embeddings:
        config.text_config.tie_word_embeddings = True
    with pytest.raises(UserError, match=message):
        official_settings(config)
