"""Official adapter files become PEFT folders; a file that does not fit is refused with what is wrong."""

import argparse
import json
import warnings

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaConfig

from llama_adapter.checkpoints.convert import ConvertConfig, convert
from llama_adapter.errors import UserError
from llama_adapter.models import read_notes
from tests.checkpoints import official_files
from tests.checkpoints.official_files import Shape
from tests.checkpoints.published_keys import published_keys
from tests.tiny import tiny_llama

V1 = Shape(kind="adapter-v1", layers=2, heads=4, groups=4, adapted=1, length=10, all_gates=False)
V2 = Shape(
    kind="adapter-v2",
    layers=2,
    heads=4,
    groups=4,
    adapted=1,
    length=3,
    maps=("attention.wq", "feed_forward.w2"),
    lora_rank=2,
    norms=True,
    final_norm=True,
    visual_depth=1,
)
REDUCED = {
    4096: 64,
    11008: 96,
    16384: 96,
    1024: 32,
    32000: 100,
    768: 48,
    2304: 144,
    3072: 192,
    8192: 128,
    22016: 160,
}
"""Sizes of the published models -> sizes with as many heads and layers that a test can hold."""
KEY_LISTS = {
    "v1_llama_adapter_len10_layer30_release": "adapter-v1",
    "v2_BIAS-7B": "adapter-v2",
    "v2_LORA-BIAS-7B": "adapter-v2",
    "v2_CAPTION-7B_likely": "adapter-v2",
    "v2_superset_bias": "adapter-v2",
    "v2_superset_lora_bias": "adapter-v2",
    "v2_chat_llama65b_bias_scale_norm_v1": "adapter-v2-chat",
    "imagebind_7B": "imagebind-llm",
    "imagebind_7B-pretrained": "imagebind-llm",
    "imagebind_7B_legacy_bridge": "imagebind-llm",
}


@pytest.fixture
def run(tmp_path):
    """Convert ``tensors`` for a model of ``shape``; returns the folder."""

    def run(shape, content, **options):
        shape.config().save_pretrained(tmp_path / "base")
        torch.save(content, tmp_path / "official.pth")
        settings = {"kind": shape.kind, "base": str(tmp_path / "base"), "output": str(tmp_path / "ours")}
        convert(ConvertConfig(checkpoint=str(tmp_path / "official.pth"), **settings | options))
        return tmp_path / "ours"

    return run


def test_the_folder_opens_with_peft_and_says_how_to_ask(run, tmp_path):
    folder = run(V1, official_files.tensors(V1))
    tiny_llama(**V1.config().to_diff_dict()).save_pretrained(tmp_path / "base")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # such as missing tensors
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), folder)
    assert model.peft_config["default"].prompt_layers == 1
    assert read_notes(folder).template == "alpaca"


def test_a_training_checkpoint_gives_the_same_adapter(run, capsys):
    tensors = official_files.tensors(V1)
    plain = load_file(run(V1, tensors) / "adapter_model.safetensors")
    whole = tensors | {"tok_embeddings.weight": torch.zeros(20, 16), "norm.weight": torch.ones(16)}
    content = {"model": whole, "optimizer": {"state": {}}, "epoch": 4, "args": argparse.Namespace(lr=1.0)}
    again = load_file(run(V1, content, overwrite=True) / "adapter_model.safetensors")
    assert plain.keys() == again.keys()
    assert all(torch.equal(plain[name], again[name]) for name in plain)
    said = capsys.readouterr().out
    assert "frozen base weights" in said
    assert "Left out, beside the tensors: args, epoch, optimizer." in said


def test_scalar_gates_and_the_raw_gate_are_kept(run, capsys):
    shape = Shape(kind="adapter-v1", layers=2, heads=4, groups=4, adapted=2, length=10, scalar_gate=True)
    folder = run(shape, official_files.tensors(shape), gate_activation="identity")
    stored = json.loads((folder / "adapter_config.json").read_text())
    assert (stored["gate"], stored["gate_activation"], stored["prompt_layers"]) == ("scalar", "identity", 2)
    assert "gate activation identity" in capsys.readouterr().out


def test_the_visual_part_is_kept_whole(run):
    tensors = official_files.tensors(V2)
    kept = load_file(run(V2, {"model": tensors}) / "conditioner.safetensors")
    visual = {name for name in tensors if name.startswith(("clip_proj", "visual_"))}
    assert kept.keys() == visual
    assert all(torch.equal(kept[name], tensors[name]) for name in visual)


def test_the_precision_can_be_chosen(run):
    folder = run(V1, official_files.tensors(V1), dtype="bfloat16")
    stored = load_file(folder / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}


def drop(name):
    return lambda tensors: {key: tensor for key, tensor in tensors.items() if key != name}


def add(name, *shape):
    return lambda tensors: tensors | {name: torch.zeros(shape)}


@pytest.mark.parametrize(
    ("shape", "change", "message"),
    [
        (V2, drop("layers.1.attention.wq.bias"), r"layers.1.attention.wq.bias \(16\) is missing; nearest: "),
        (V2, add("layers.1.attention_norm.weight", 7), r"has shape \(7\), not \(16\)"),
        (V2, drop("visual_blocks.0.mlp.fc2.weight"), "visual_blocks.0.mlp.fc2.weight .* is missing"),
        (V2, add("clip_proj.bias", 9), r"clip_proj.bias has shape \(9\), not \(6\)"),
        (V1, add("layers.0.attention.wq_bias", 16), "Is it of `--kind adapter-v2-chat`?"),
        (V1, add("something.else", 2), "do not have: something.else"),
        (V1, drop("layers.1.attention.gate"), "--prompt_length"),
        (V1, add("layers.1.attention.gate", 1, 3, 1, 1), r"\(1, 3, 1, 1\), not \(1, 4, 1, 1\)"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(run, tmp_path, shape, change, message):
    with pytest.raises(UserError, match=message):
        run(shape, change(official_files.tensors(shape)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "official.pth"]


def test_the_wrong_base_is_refused(run):
    narrower = Shape(kind="adapter-v1", layers=2, heads=2, groups=2, adapted=1, length=10)
    with pytest.raises(UserError, match=r"has shape \(10, 16\), not \(10, 8\)"):
        run(narrower, official_files.tensors(V1))


def test_a_base_of_another_family_is_refused(tmp_path):
    from transformers import GPT2Config

    GPT2Config(n_layer=1, n_embd=8, n_head=2).save_pretrained(tmp_path / "gpt2")
    torch.save(official_files.tensors(V1), tmp_path / "official.pth")
    config = ConvertConfig(
        kind="adapter-v1",
        checkpoint=str(tmp_path / "official.pth"),
        base=str(tmp_path / "gpt2"),
        output=str(tmp_path / "ours"),
    )
    with pytest.raises(UserError, match="'gpt2'"):
        convert(config)


def test_no_base_is_refused(tmp_path):
    config = ConvertConfig(kind="adapter-v1", checkpoint="x.pth", output=str(tmp_path / "ours"))
    with pytest.raises(UserError, match="--base"):
        convert(config)


def test_only_v1_gates_can_be_raw(run):
    with pytest.raises(UserError, match="always uses tanh"):
        run(V2, official_files.tensors(V2), gate_activation="identity")


def test_another_base_s_embeddings_are_noticed(run, tmp_path, capsys):
    tiny_llama(**V1.config().to_diff_dict()).save_pretrained(tmp_path / "base")
    run(V1, official_files.tensors(V1) | {"tok_embeddings.weight": torch.full((20, 16), 9.0)})
    assert "token embeddings differ" in capsys.readouterr().out


@pytest.mark.parametrize("name", KEY_LISTS)
def test_every_published_file_converts_with_nothing_left_over(name, tmp_path):
    container, shapes = published_keys(name)
    kind = KEY_LISTS[name]
    large = kind == "adapter-v2-chat"
    LlamaConfig(
        vocab_size=100,
        hidden_size=128 if large else 64,
        intermediate_size=160 if large else 96,
        num_hidden_layers=80 if large else 32,
        num_attention_heads=64 if large else 32,
    ).save_pretrained(tmp_path / "base")
    tensors = {
        key: torch.randn([REDUCED.get(size, size) for size in shape], dtype=torch.float16)
        for key, shape in shapes.items()
    }
    for key in tensors:  # as published: gates of layers without prompts were never trained
        below = ("layers.0.", "layers.1.") if kind == "adapter-v1" else ("layers.0.",)
        if key.endswith("gate") and any(layer in key for layer in below):
            tensors[key].zero_()
    torch.save({"model": tensors} if container.startswith("{") else tensors, tmp_path / "file.pth")
    options = {"kind": kind, "base": str(tmp_path / "base")}
    convert(ConvertConfig(checkpoint=str(tmp_path / "file.pth"), output=str(tmp_path / "ours"), **options))
    stored = json.loads((tmp_path / "ours" / "adapter_config.json").read_text())
    if "adapter_query.weight" in tensors:
        adapted = len(tensors["adapter_query.weight"]) // 10
        assert (stored["prompt_length"], stored["prompt_layers"]) == (10, adapted)
    kept = sum(len(load_file(path)) for path in (tmp_path / "ours").glob("*.safetensors"))
    prompts = stored["prompt_layers"] - 1 if stored["prompt_length"] else 0
    base = 0 if "superset" not in name else 291 - 65
    assert kept - prompts + base == len(tensors)
