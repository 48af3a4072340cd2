"""The README of an adapter runs: its code block loads the adapter in a fresh namespace."""

import re

import torch

from llama_adapter.training.model_card import write_card


def test_the_card_starts_with_the_import_that_registers_the_method(tmp_path):
    write_card(tmp_path, base="org/base", kind="ZERO_INIT", template="alpaca")
    text = (tmp_path / "README.md").read_text()
    code = re.search(r"```python\n(.*?)```", text, re.S)[1]
    assert code.splitlines()[0] == "import llama_adapter"
    assert "base_model: org/base" in text.split("---")[1]
    assert "Prompt template: `alpaca`" in text
    assert f"--base org/base --adapter {tmp_path.name}" in text


def test_an_unknown_template_is_said_to_be_unknown(tmp_path):
    write_card(tmp_path, base="b", kind="LORA", template=None)
    assert "Prompt template: `not recorded`" in (tmp_path / "README.md").read_text()


def test_the_code_of_the_card_runs(trainer, base_dir, tmp_path, monkeypatch):
    made = trainer(max_steps=1)
    made.notes.base = str(base_dir)
    made.save_trained(tmp_path / "adapter")
    text = (tmp_path / "adapter" / "README.md").read_text()
    code = re.search(r"```python\n(.*?)```", text, re.S)[1]
    loading = "\n".join(line for line in code.splitlines() if "tokenizer" not in line)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(loading, names)  # the README's own lines
    ids = torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        assert torch.equal(names["model"](input_ids=ids).logits, made.model.eval()(input_ids=ids).logits)


def test_checkpoints_have_a_card_too(trainer, tmp_path):
    made = trainer(max_steps=1, save_strategy="steps", save_steps=1.0)
    made.train()
    assert "import llama_adapter" in (tmp_path / "run" / "checkpoint-1" / "README.md").read_text()


def test_a_base_without_a_name_is_no_error(trainer, tmp_path):
    made = trainer(max_steps=1)
    made.model.active_peft_config.base_model_name_or_path = ""
    made.save_model(str(tmp_path / "adapter"))
    assert "Adapter for the base model" in (tmp_path / "adapter" / "README.md").read_text()
