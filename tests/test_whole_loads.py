"""A base or an adapter of which one tensor is wrong stops every way to load it."""

import copy
import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from llama_adapter import ZeroInitConfig
from llama_adapter.cli import main
from llama_adapter.errors import UserError
from llama_adapter.models import BaseModelConfig, load_adapter, load_base
from llama_adapter.whole_loads import Misfit, not_finite, refuse
from tests.tiny import byte_tokenizer, tiny_llama

ADAPTERS = {
    "prompts": ZeroInitConfig(task_type="CAUSAL_LM", prompt_length=3, deltas=["bias"], norms=True),
    "lora": LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], init_lora_weights=False),
}


def saved_base(folder, **changes):
    tiny_llama(**changes).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return Path(folder)


@pytest.fixture
def base(tmp_path):
    return saved_base(tmp_path / "base")


def adapter_on(base, kind, folder):
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), copy.deepcopy(ADAPTERS[kind])).save_pretrained(
        folder
    )
    return Path(folder)


def changed(file, change):
    """Save a file again, one tensor changed by ``change(tensors, name)``; returns its name."""
    tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
    name = sorted(tensors)[len(tensors) // 2]
    change(tensors, name)
    save_file(tensors, file, metadata={"format": "pt"})
    return name


def missing(tensors, name):
    del tensors[name]


def unexpected(tensors, name):
    tensors[f"{name}.more"] = torch.ones(2)


def misshapen(tensors, name):
    tensors[name] = torch.ones(3, 5)


def not_a_number(tensors, name):
    tensors[name].view(-1)[-1] = float("nan")


def infinite(tensors, name):
    tensors[name] = tensors[name].to(torch.bfloat16)
    tensors[name].view(-1)[0] = float("-inf")


CHANGES = {
    "is missing": missing,
    "is unexpected": unexpected,
    "has shape (3, 5), not": misshapen,
    "holds NaN or infinite": not_a_number,
    "infinite values": infinite,
}


@pytest.mark.parametrize("words", CHANGES)
def test_one_wrong_tensor_of_a_base_stops_the_load(base, words):
    name = changed(base / "model.safetensors", CHANGES[words])
    with pytest.raises(UserError) as error:
        load_base(BaseModelConfig(name_or_path=str(base)))
    said = str(error.value)
    assert f"{str(base)!r} does not fit the LlamaForCausalLM of its config.json: 1 tensors" in said
    assert name in said
    assert words in said
    assert "allow_misfit=[" in said
    assert load_base(BaseModelConfig(name_or_path=str(base), allow_misfit=[f"{name}*"]))


@pytest.mark.parametrize("kind", ADAPTERS)
@pytest.mark.parametrize("words", CHANGES)
def test_one_wrong_tensor_of_an_adapter_stops_the_load(base, words, kind, tmp_path):
    folder = adapter_on(base, kind, tmp_path / "adapter")
    name = changed(folder / "adapter_model.safetensors", CHANGES[words])

    def load(**options):
        settings = BaseModelConfig(name_or_path=str(base))
        return load_adapter(load_base(settings), {"default": folder}, **options)

    with pytest.raises(UserError) as error:
        load()
    said = str(error.value)
    assert f"{str(folder)!r} does not fit the base {str(base)!r}" in said
    assert words in said
    assert ".".join(name.split(".")[:-1]) in said
    assert load(allow_misfit=["*"])


@pytest.mark.parametrize("other", [{"num_hidden_layers": 1}, {"hidden_size": 16}, {"num_hidden_layers": 3}])
@pytest.mark.parametrize("kind", ADAPTERS)
def test_an_adapter_of_another_size_is_no_adapter_that_does_nothing(base, kind, other, tmp_path):
    folder = adapter_on(base, kind, tmp_path / "adapter")
    if kind == "lora" and "num_hidden_layers" in other and other["num_hidden_layers"] > 2:
        wanted = "is missing"  # LoRA keeps no fingerprint
    else:
        wanted = "hidden_size was 32, is 16|num_hidden_layers was 2, is|unexpected|shape"
    elsewhere = load_base(BaseModelConfig(name_or_path=str(saved_base(tmp_path / "other", **other))))
    with pytest.raises(UserError, match=rf"does not fit the base '(?s:.*)({wanted})"):
        load_adapter(elsewhere, {"default": folder})


def test_tied_embeddings_are_no_missing_tensor_and_untied_ones_are(tmp_path):
    tied = saved_base(tmp_path / "tied", tie_word_embeddings=True)
    assert "lm_head.weight" not in load_file(tied / "model.safetensors")
    assert load_base(BaseModelConfig(name_or_path=str(tied)))
    settings = json.loads((tied / "config.json").read_text())
    (tied / "config.json").write_text(json.dumps(settings | {"tie_word_embeddings": False}))
    with pytest.raises(UserError, match="lm_head.weight is missing"):
        load_base(BaseModelConfig(name_or_path=str(tied)))
    model = load_base(BaseModelConfig(name_or_path=str(tied), allow_misfit=["lm_head.weight"]))
    assert model.lm_head.weight.isfinite().all()


def test_what_transformers_ignores_is_let_through(base):
    tensors = load_file(base / "model.safetensors")
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    assert load_base(BaseModelConfig(name_or_path=str(base)))


@pytest.mark.parametrize("verb", ["generate", "evaluate", "merge", "train"])
@pytest.mark.parametrize("whose", ["base", "adapter"])
def test_every_verb_stops_with_code_2_and_takes_the_option(base, verb, whose, tmp_path, capsys):
    config = ZeroInitConfig(task_type="CAUSAL_LM", prompt_length=0, deltas=["bias"])
    folder = tmp_path / "adapter"
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(folder)
    if whose == "adapter" and verb == "train":
        pytest.skip("train loads no adapter")
    file = base / "model.safetensors" if whose == "base" else folder / "adapter_model.safetensors"
    name = changed(file, not_a_number)
    Path("rows.json").write_text(json.dumps([{"instruction": "a", "output": "b"}] * 4))
    Path("vsr.jsonl").write_text('{"caption": "a cat", "label": 1, "image": "1.jpg"}\n')
    common = ["--base", str(base), "--adapter", str(folder)]
    lines = {
        "generate": ["generate", *common, "--prompt", "a", "--max-new-tokens", "1"],
        "merge": ["merge", *common, "--output", "merged"],
        "evaluate": ["evaluate", "anls", *common, "--data", "rows.json", "--output", "out"],
        "train": ["train", "--base.name_or_path", str(base), "--adapter.prompt_length", "2",
                  "--data.template", "plain", "--data.train", "[{path: rows.json}]", "--training.max_steps",
                  "1", "--training.output_dir", "run", "--training.use_cpu", "true"],
    }  # fmt: skip
    assert main(lines[verb]) == 2
    said = " ".join(capsys.readouterr().err.split())
    if verb != "evaluate":  # which may refuse its questions first
        assert "does not fit" in said
        assert "allow_misfit" in said
    if verb in ("generate", "merge"):
        assert main([*lines[verb], "--allow_misfit", f"[{name}, '*bias*']"]) == 0


def test_peft_s_own_way_warns_in_one_line(base, tmp_path):
    folder = adapter_on(base, "prompts", tmp_path / "adapter")
    changed(folder / "adapter_model.safetensors", unexpected)
    with pytest.warns(UserWarning, match=r"does not fit .* in 1 tensors, such as .*\.more.* is unexpected"):
        PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder)


def test_values_of_every_kind_are_looked_at():
    fine = {"a": torch.ones(3), "b": torch.zeros(0), "c": torch.arange(3), "d": torch.ones(2, device="meta")}
    fine |= {"e": torch.full((2,), 60000.0, dtype=torch.float16), "f": torch.ones(2).to(torch.float8_e4m3fn)}
    assert not not_finite(fine)
    wrong = {"g": torch.tensor([1.0, float("nan")]).to(torch.float8_e4m3fn), "h": torch.tensor(float("inf"))}
    assert not_finite(fine | wrong).keys() == wrong.keys()


def test_what_is_allowed_is_said(caplog):
    misfit = Misfit(missing={f"layer.{index}": "is missing" for index in range(9)})
    refuse(misfit, ["layer.?"], "x.pth", "this model")
    assert "does not fit this model in 9 tensors, which allow_misfit names" in caplog.text
    assert "and 3 more" in caplog.text
    with pytest.raises(UserError, match=r"1 tensors\.\n  layer\.8 is missing\nLikely the copy is incomplete"):
        refuse(misfit, [f"layer.{index}" for index in range(8)], "x.pth", "this model")


def test_a_folder_without_weights_or_with_a_cut_shard_is_named(base, tmp_path):
    folder = adapter_on(base, "lora", tmp_path / "adapter")
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-7])
    model = load_base(BaseModelConfig(name_or_path=str(base)))
    with pytest.raises(UserError, match="adapter_model.safetensors' is damaged or no safetensors file"):
        load_adapter(model, {"default": folder})
    weights.unlink()
    with pytest.raises(UserError, match="has no adapter_model.safetensors or adapter_model.bin"):
        load_adapter(model, {"default": folder})
    shutil.rmtree(folder)
