"""A saved adapter loads in fresh programs, whatever they import first and whatever only looks for PEFT."""

import re

import pytest
import torch
from peft import get_peft_model
from transformers import AutoModelForCausalLM

from llama_adapter import ZeroInitConfig

ORDERS = {
    "the package, then a look for PEFT": "import llama_adapter\nfrom transformers import Trainer",
    "every other kind of look": (
        "import llama_adapter, importlib.util\nimportlib.util.find_spec('peft')\n"
        "from transformers.utils import is_peft_available\nassert is_peft_available()\n"
        "from accelerate.utils import is_peft_model\nimport trl\n"
        "from transformers import pipeline, AutoModelForCausalLM"
    ),
    "PEFT first": "import peft\nimport llama_adapter",
    "transformers first": "from transformers import Trainer\nimport llama_adapter",
    "both in threads": (
        "import threading\nimport llama_adapter\n"
        "def load(module): import importlib; importlib.import_module(module)\n"
        "names = ['peft', 'llama_adapter.adapters', 'llama_adapter.adapters.tuner', 'transformers', 'peft']\n"
        "threads = [threading.Thread(target=load, args=(name,)) for name in names]\n"
        "[thread.start() for thread in threads]\n[thread.join() for thread in threads]"
    ),
}

QUICK = ("the package, then a look for PEFT", "both in threads")

WAYS = {
    "transformers": (
        "from transformers import AutoModelForCausalLM as Auto\nmodel = Auto.from_pretrained(adapter)"
    ),
    "pipeline": "from transformers import pipeline\nmodel = pipeline('text-generation', model=adapter).model",
    "peft": (
        "from peft import AutoPeftModelForCausalLM as Auto\nmodel = Auto.from_pretrained(adapter)\n"
        "assert 'zero_init' in str(Auto.from_pretrained(adapter))"
    ),
    "onto a base": (
        "from peft import PeftModel\nfrom transformers import AutoModelForCausalLM\n"
        "model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)"
    ),
}


@pytest.fixture
def saved(llama_dir, tokenizer, tmp_path, stir, ids, logits):
    """A saved adapter, with its tokenizer, and a sum of the logits that it gives here."""
    config = ZeroInitConfig(task_type="CAUSAL_LM", preset="v2")
    model = stir(get_peft_model(AutoModelForCausalLM.from_pretrained(llama_dir), config)).eval()
    model.save_pretrained(tmp_path / "adapter")
    tokenizer.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter", logits(model, ids).double().sum().item()


@pytest.mark.usefixtures("transformers_takes_peft")
@pytest.mark.parametrize(
    "order",
    [
        order if order in QUICK else pytest.param(order, marks=pytest.mark.slow)  # a program takes seconds
        for order in ORDERS
    ],
)
def test_every_way_to_load_works_after(order, saved, llama_dir, ids, run_python, tmp_path):
    """The first way is another one in each program, since the first brings PEFT in."""
    adapter, expected = saved
    ways = list(WAYS.values())
    turn = list(ORDERS).index(order) % len(ways)
    script = tmp_path / "load.py"
    look = f"print('sum', model(torch.tensor({ids.tolist()})).logits.double().sum().item())\n"
    heading = f"adapter, base = {str(adapter)!r}, {str(llama_dir)!r}\nimport torch\n"
    steps = [f"{way}\n{look}" for way in ways[turn:] + ways[:turn]]
    script.write_text(f"{ORDERS[order]}\n{heading}{''.join(steps)}")
    found = [float(value) for value in re.findall(r"^sum (\S+)$", run_python(script), flags=re.MULTILINE)]
    torch.testing.assert_close(torch.tensor(found), torch.full((len(WAYS),), expected), atol=1e-3, rtol=1e-5)
