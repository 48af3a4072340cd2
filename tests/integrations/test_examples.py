"""Every example of this folder's tools runs, as its header says, here on a tiny random model."""

from pathlib import Path

import pytest
from peft import PeftModel
from transformers import AutoModelForCausalLM

EXAMPLES = Path(__file__).parents[2] / "examples"
HEADER = ("Command:", "Hardware:", "Time:", "Expected:")


@pytest.mark.parametrize("name", ["peft_minimal.py", "trl_sft.py", "trl_dpo.py"])
def test_example(name, llama_dir, run_python, tmp_path, logits, ids):
    if name.startswith("trl"):
        pytest.importorskip("trl", reason="TRL is not installed: pip install trl")
    adapter = tmp_path / "adapter"
    printed = run_python(EXAMPLES / name, "--base", llama_dir, "--steps", "2", "--output", adapter)
    assert str(adapter) in printed
    base = AutoModelForCausalLM.from_pretrained(llama_dir)
    before = logits(base, ids)
    assert (logits(PeftModel.from_pretrained(base, adapter), ids) != before).any()


@pytest.mark.parametrize("name", ["peft_minimal.py", "trl_sft.py", "trl_dpo.py"])
def test_header_says_what_to_expect(name):
    text = (EXAMPLES / name).read_text().split('"""')[1]
    assert all(word in text for word in HEADER)
    assert f"python examples/{name}" in text
