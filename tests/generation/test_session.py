"""Adapters by name: loading, switching, templates, and the base model underneath."""

import json

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from llama_adapter.errors import UserError
from llama_adapter.generation import GenerateConfig, SamplingConfig
from llama_adapter.generation.session import Session, choose_device, name_adapters
from llama_adapter.models import AdapterNotes, write_notes

LIMITS = SamplingConfig(max_new_tokens=12)
PROMPTS = ["a", "Count: 1 2 3"]


def save_adapter(base, folder, seed, template=None):
    """An adapter with random weights that change every answer."""
    torch.manual_seed(seed)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base), LoraConfig(r=4, target_modules=["q_proj", "v_proj"])
    )
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    model.save_pretrained(folder)
    write_notes(folder, AdapterNotes(template=template, base=str(base)))
    return folder


@pytest.fixture(scope="module")
def adapters(tiny_base, tmp_path_factory):
    root = tmp_path_factory.mktemp("adapters")
    return {
        "one": save_adapter(tiny_base, root / "one", 1, "alpaca"),
        "two": save_adapter(tiny_base, root / "two", 2, "plain"),
    }


def session(**settings):
    return Session(GenerateConfig(prompt=["x"], **settings))


def answers(name, current):
    return current.use(name).generate(PROMPTS, LIMITS)


def test_each_adapter_answers_as_it_does_alone(tiny_base, adapters):
    both = session(base=str(tiny_base), adapter=[f"{name}={path}" for name, path in adapters.items()])
    alone = {name: answers(name, session(adapter=[f"{name}={path}"])) for name, path in adapters.items()}
    base = answers("base", session(base=str(tiny_base)))
    for name in ("two", "one", "base", "one", "two", "base"):
        if name != "base":
            assert answers(name, both) == alone[name]
    assert alone["one"] != alone["two"]
    plain = both.use("base")
    plain.template, plain.template_name = both.use("two").template, "plain"
    both.use("base")
    assert answers("base", both) == base


def test_the_first_adapter_answers_unless_another_is_named(adapters):
    given = [f"{name}={path}" for name, path in adapters.items()]
    assert session(adapter=given).current == "one"
    assert session(adapter=given, use="two").current == "two"
    assert session(adapter=given, use="base").current == "base"


def test_template_follows_the_adapter_unless_it_was_asked_for(tiny_base, adapters):
    given = [f"{name}={path}" for name, path in adapters.items()]
    current = session(adapter=given)
    assert [current.use(name).template_name for name in ("one", "two", "base")] == ["alpaca", "plain", "chat"]
    fixed = session(adapter=given, template="plain")
    assert [fixed.use(name).template_name for name in ("one", "base")] == ["plain", "plain"]


def test_base_comes_from_the_adapter_when_it_is_not_given(tiny_base, adapters, tmp_path):
    assert session(adapter=[str(adapters["one"])]).model.config.hidden_size == 32
    with pytest.raises(UserError, match="base is None. Add --base FOLDER"):
        session()
    silent = tmp_path / "silent"
    silent.mkdir()
    (silent / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    with pytest.raises(UserError, match="silent' does not say which base"):
        session(adapter=[str(silent)])


def test_unknown_names_and_folders_are_refused(tiny_base, adapters):
    given = [str(adapters["one"])]
    with pytest.raises(UserError, match="no adapter 'three'. Use one of: one, base."):
        session(adapter=given, use="three")
    with pytest.raises(UserError, match="does not exist"):
        session(base=str(tiny_base), adapter=["nowhere"])


def test_an_adapter_of_another_base_is_refused(adapters, tmp_path):
    from tests.tiny import byte_tokenizer, tiny_llama

    tiny_llama(hidden_size=16, head_dim=8).save_pretrained(tmp_path / "other")
    byte_tokenizer().save_pretrained(tmp_path / "other")
    with pytest.raises(UserError, match=r"does not fit the base .*(?s:.*)models of different sizes"):
        session(base=str(tmp_path / "other"), adapter=[str(adapters["one"])])


def test_names_come_from_the_option_or_the_folder():
    assert {name: str(path) for name, path in name_adapters(["a=x/y", "runs/v1.0", "x=y=z"]).items()} == {
        "a": "x/y",
        "v1_0": "runs/v1.0",
        "x": "y=z",
    }
    for given in (["x/one", "y/one"], ["a=x", "a=y"], ["base=x"]):
        with pytest.raises(UserError, match="is taken. Use --adapter ANOTHER_NAME=FOLDER"):
            name_adapters(given)


def test_a_device_that_is_not_here_is_refused():
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in ("cuda", "mps", "cpu")
    with pytest.raises(UserError, match="device is 'gpu', which torch does not know"):
        choose_device("gpu")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="device is 'cuda:1', but this machine has none. Use one of: cpu"):
            choose_device("cuda:1")
