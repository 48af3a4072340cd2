"""The method in other processes: spawned workers, fresh programs, and a clash of names."""

import multiprocessing
from pathlib import Path

import pytest
import torch
from peft import get_peft_model
from transformers import AutoModelForCausalLM

from llama_adapter import ZeroInitConfig

HERE = Path(__file__).parent
PEFT_TYPE_FILE = HERE.parents[1] / "llama_adapter" / "adapters" / "peft_type.py"


@pytest.fixture
def saved(llama_dir, tmp_path, stir, ids, logits):
    """A saved adapter and the logits it gives here."""
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(llama_dir), ZeroInitConfig(task_type="CAUSAL_LM", preset="v2")
    )
    stir(model).eval().save_pretrained(tmp_path)
    return tmp_path, logits(model, ids)


def test_spawned_worker_unpickles_builds_and_loads(saved, llama_dir, ids, monkeypatch):
    adapter, expected = saved
    monkeypatch.syspath_prepend(HERE)
    build_and_load = pytest.importorskip("worker").build_and_load
    config = ZeroInitConfig(task_type="CAUSAL_LM", prompt_length=4, deltas=["lora"], norms=True)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        result = pool.apply(build_and_load, (config, llama_dir, adapter, ids.tolist()))
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(llama_dir), config)
    assert result["config"] == repr(config), "both attached it to the same base"
    assert result["trainable"] == model.get_nb_trainable_parameters()
    assert torch.equal(torch.tensor(result["logits"]), expected)


def test_a_fresh_program_needs_one_import(saved, run_python, tmp_path):
    """PEFT has no discovery of methods: without the import it does not know the type."""
    adapter, _ = saved
    script = tmp_path / "load.py"
    script.write_text(
        "from peft import PeftConfig\n"
        "try:\n"
        f"    PeftConfig.from_pretrained({str(adapter)!r})\n"
        "except KeyError as error:\n"
        "    print('without:', error)\n"
        "import llama_adapter\n"
        f"print('with:', PeftConfig.from_pretrained({str(adapter)!r}).prompt_layers)\n"
    )
    printed = run_python(script)
    assert "without: 'ZERO_INIT'" in printed
    assert "with: -1" in printed


def test_a_method_of_the_same_name_in_peft_is_a_clear_error(run_python, tmp_path):
    """A peft release of the future may take the name: the file that adds names stands in for that release."""
    script = tmp_path / "clash.py"
    script.write_text(
        "import runpy\n"
        "from dataclasses import dataclass\n"
        "from peft import LoraConfig\n"
        "from peft.tuners.lora import LoraModel\n"
        "from peft.utils import register_peft_method\n"
        f"theirs = runpy.run_path({str(PEFT_TYPE_FILE)!r})['add_peft_type']('ZERO_INIT')\n"
        "class TheirConfig(LoraConfig):\n"
        "    pass\n"
        "class TheirModel(LoraModel):\n"
        "    prefix = 'zero_init_'\n"
        "register_peft_method(name='zero_init', config_cls=TheirConfig, model_cls=TheirModel)\n"
        "import llama_adapter\n"
    )
    message = run_python(script, expect=1)
    assert "ImportError: peft already has a method 'zero_init'" in message
    assert "TheirModel" in message
    assert "update llama-adapter" in message
