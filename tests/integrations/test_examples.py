"""The examples for PEFT and TRL run as their headers say, here on a tiny random model."""

import json
import runpy
import sys
from pathlib import Path

import pytest
from peft import PeftModel
from transformers import AutoModelForCausalLM

import llama_adapter  # noqa: F401  registers the method

EXAMPLES = Path(__file__).parents[2] / "examples"
# On a machine without a GPU torch warns that transformers' default, pinned memory, has no effect.
pytestmark = pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true:UserWarning")

NAMES = ["peft_minimal.py", "trl_sft.py", "trl_dpo.py"]


@pytest.mark.parametrize("name", NAMES)
def test_example_runs_and_leaves_an_adapter(name, llama_dir, tmp_path, logits, ids, monkeypatch, capsys):
    if name.startswith("trl"):
        pytest.importorskip("trl", reason="TRL is not installed: pip install trl")
    adapter = tmp_path / "adapter"
    options = ["--base", str(llama_dir), "--steps", "3", "--output", str(adapter)]
    monkeypatch.setattr(sys, "argv", [name, *options])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    assert str(adapter) in capsys.readouterr().out

    base = AutoModelForCausalLM.from_pretrained(llama_dir)
    before = logits(base, ids)
    assert (logits(PeftModel.from_pretrained(base, adapter), ids) != before).any()


def test_preferences_from_a_file(llama_dir, shared_data, tmp_path, monkeypatch, capsys):
    pytest.importorskip("trl", reason="TRL is not installed: pip install trl")
    records = json.loads((shared_data / "instruct" / "dpo_en_demo.json").read_text())[:6]
    data = tmp_path / "pairs.json"
    data.write_text(json.dumps(records))
    options = ["--base", str(llama_dir), "--data", str(data), "--steps", "1", "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["trl_dpo.py", *options])
    runpy.run_path(str(EXAMPLES / "trl_dpo.py"), run_name="__main__")
    assert "loss: first 0.693" in capsys.readouterr().out


@pytest.mark.parametrize("name", NAMES)
def test_header_says_how_to_run_it_and_what_to_expect(name):
    header = (EXAMPLES / name).read_text().split('"""')[1]
    assert f"python examples/{name}" in header
    for line in ("Hardware:", "Time:", "Expected:"):
        assert len(header.split(line)[1].split("\n")[0].strip()) > 20
