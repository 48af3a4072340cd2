"""The Python of docs/peft.md runs from top to bottom, here with a tiny random model as the base."""

import re
from pathlib import Path

import pytest

try:
    import lm_eval  # here, since importing it sets environment variables
except ImportError:
    lm_eval = None

PAGE = Path(__file__).parents[2] / "docs" / "peft.md"
BASE = "models/SmolLM2-135M-Instruct"
SECTIONS = re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE.read_text(), flags=re.DOTALL | re.MULTILINE)

# What a reader without a GPU sees too: torch says that pinned memory, the usual default, has no effect,
# and the adapters that the model of two towers is not in the support matrix as a whole.
pytestmark = [
    pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true:UserWarning"),
    pytest.mark.filterwarnings("ignore:No test runs model type 'clip':UserWarning"),
]


@pytest.mark.usefixtures("transformers_takes_peft")
def test_the_page_runs(llama_dir):
    pytest.importorskip("trl", reason="TRL is not installed: pip install trl")
    names = {}
    for title, section in SECTIONS:
        if title == "lm-evaluation-harness" and lm_eval is None:
            continue
        for code in re.findall(r"^```python\n(.*?)^```", section, flags=re.DOTALL | re.MULTILINE):
            exec(compile(code.replace(BASE, str(llama_dir)), f"{PAGE.name}, {title}", "exec"), names)
    assert Path("runs/my-adapter/adapter_model.safetensors").is_file()
    assert Path("runs/dpo/adapter_config.json").is_file()
    assert BASE in PAGE.read_text()
