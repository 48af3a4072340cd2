"""A damaged file in a model's or an adapter's folder is named by every verb that reads the folder."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import get_peft_model
from transformers import AutoModelForCausalLM

from llama_adapter import ZeroInitConfig
from llama_adapter.cli import main
from llama_adapter.errors import UserError
from llama_adapter.models import BaseModelConfig, load_base, load_tokenizer
from tests.faults.mutations import mutants

WHOLE_FILES = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")
DAMAGE = {
    "empty": b"",
    "blank": b" \n",
    "cut": b'{"model_type": "lla',
    "no JSON": b"\x80\x04\x95",
    "a list": b"[1, 2]",
    "null": b"null",
    "deep": b"[" * 100_000,
    "big": b'{"a": ' + b"9" * 5000 + b"}",
}


def ask(base, *more):
    return main(["generate", "--base", str(base), *more, "--prompt", "a", "--max-new-tokens", "1"])


@pytest.fixture
def base(tiny_base, tmp_path):
    return Path(shutil.copytree(tiny_base, tmp_path / "base"))


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("name", WHOLE_FILES)
def test_damaged_settings_of_a_base_are_named(base, name, how, capsys):
    (base / name).write_bytes(DAMAGE[how])
    assert ask(base) == 2
    said = capsys.readouterr().err
    assert repr(str(base / name)) in said.replace("\n", "")
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("config.json", {"model_type": 5}, "has model_type=5, a int. Use str"),
        ("config.json", {"model_type": ["llama"]}, "has model_type=['llama'], a list"),
        ("generation_config.json", {"eos_token_id": "2"}, "has eos_token_id='2', a str. Use int or list"),
        ("generation_config.json", {"eos_token_id": True}, "has eos_token_id=True, a bool"),
        ("config.json", {"hidden_size": "32"}, "could not be"),
        ("config.json", {"num_hidden_layers": -1}, ""),
        ("config.json", {"num_attention_heads": 0}, ""),
        ("tokenizer.json", {"model": None}, "has model=None"),
        ("tokenizer.json", {"model": {"type": "BPE", "vocab": 3}}, "tokenizer"),
        ("tokenizer_config.json", {"chat_template": 3}, "has chat_template=3, a int"),
    ],
)
def test_settings_of_another_type_are_named(base, name, change, words, capsys):
    content = json.loads((base / name).read_text())
    (base / name).write_text(json.dumps(content | change))
    assert ask(base) == 2
    said = capsys.readouterr().err.replace("\n", " ")
    assert words in said
    assert str(base) in said
    assert "Traceback" not in said


@pytest.fixture
def adapter(base, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(base)
    config = ZeroInitConfig(task_type="CAUSAL_LM", prompt_length=2)
    get_peft_model(model, config).save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("name", ["adapter_config.json", "llama_adapter.json", "adapter_model.safetensors"])
def test_damaged_files_of_an_adapter_are_named(base, adapter, name, how, capsys):
    (adapter / name).write_bytes(DAMAGE[how])
    assert ask(base, "--adapter", str(adapter)) == 2
    said = capsys.readouterr().err.replace("\n", "")
    assert repr(str(adapter / name)) in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    "change",
    [{"peft_type": None}, {"peft_type": "NO_SUCH"}, {"prompt_length": "ten"}, {"deltas": 5}, {"gate": []}],
)
def test_settings_of_an_adapter_of_another_type_are_named(base, adapter, change, capsys):
    content = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(content | change))
    assert ask(base, "--adapter", str(adapter)) == 2
    said = capsys.readouterr().err.replace("\n", "")
    assert str(adapter) in said
    assert "Traceback" not in said


def test_an_index_that_names_absent_shards_is_named(base):
    model = AutoModelForCausalLM.from_pretrained(base)
    (base / "model.safetensors").unlink()
    model.save_pretrained(base, max_shard_size="20KB")
    shards = sorted(base.glob("model-*.safetensors"))
    assert len(shards) > 2
    assert load_base(BaseModelConfig(name_or_path=str(base)))
    content = shards[1].read_bytes()
    shards[1].write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=rf"{shards[1].name}' is damaged or no safetensors file"):
        load_base(BaseModelConfig(name_or_path=str(base)))
    shards[1].unlink()
    with pytest.raises(UserError, match=rf"index.json' names '{shards[1].name}', which is not there"):
        load_base(BaseModelConfig(name_or_path=str(base)))
    (base / "model.safetensors.index.json").write_text('{"weight_map": {"a": 3}}')
    with pytest.raises(UserError, match="has no weight_map of names to files"):
        load_base(BaseModelConfig(name_or_path=str(base)))


def test_weights_of_torch_are_looked_at_too(base):
    model = AutoModelForCausalLM.from_pretrained(base)
    (base / "model.safetensors").unlink()
    torch.save(model.state_dict(), base / "pytorch_model.bin")
    assert load_base(BaseModelConfig(name_or_path=str(base)))
    content = (base / "pytorch_model.bin").read_bytes()
    (base / "pytorch_model.bin").write_bytes(content[:-40])
    with pytest.raises(UserError, match=r"pytorch_model.bin' is damaged"):
        load_base(BaseModelConfig(name_or_path=str(base)))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [*WHOLE_FILES, "model.safetensors"])
def test_many_damaged_folders_give_only_our_errors(base, name):
    sound, refused = (base / name).read_bytes(), 0
    for damaged in mutants(sound, 300):
        (base / name).write_bytes(damaged)
        try:
            settings = BaseModelConfig(name_or_path=str(base))
            load_tokenizer(settings) if name.startswith("tokenizer") else load_base(settings)
        except UserError:
            refused += 1
    assert refused > 100
