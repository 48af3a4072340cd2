"""The merge verb, from the command line."""

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from llama_adapter import ZeroInitConfig
from llama_adapter.cli import main
from llama_adapter.data import Turn
from llama_adapter.generation import Generator
from llama_adapter.models import AdapterNotes, write_notes
from tests.adapters.test_merging import stirred
from tests.tiny import byte_tokenizer, tiny_llama

IDS = torch.tensor([[1, 5, 9, 30, 7]])


@pytest.fixture
def adapter(tiny_base, tmp_path):
    """Saves a stirred adapter with these options; returns its folder."""

    def adapter(config):
        base = AutoModelForCausalLM.from_pretrained(tiny_base)
        stirred(get_peft_model(base, config)).save_pretrained(tmp_path / "adapter")
        return tmp_path / "adapter"

    return adapter


def run(adapter, output, *more):
    return main(["merge", "--adapter", str(adapter), "--output", str(output), *more])


@pytest.mark.parametrize(
    "config",
    [
        ZeroInitConfig(task_type="CAUSAL_LM", prompt_length=0, deltas=["input_scale", "bias"], norms=True),
        LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], init_lora_weights=False),
    ],
    ids=["zero-init", "lora"],
)
def test_the_folder_is_a_plain_model_with_the_adapter_s_answers(config, adapter, tiny_base, tmp_path, capsys):
    folder = adapter(config)
    assert run(folder, tmp_path / "merged", "--base", str(tiny_base)) == 0
    said = capsys.readouterr().out
    assert "Largest logit difference" in said
    want = (
        PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_base), folder).eval()(IDS).logits
    )
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(merged(IDS).logits, want, atol=1e-4, rtol=1e-4)
    assert (
        main(["generate", "--base", str(tmp_path / "merged"), "--prompt", "a", "--max-new-tokens", "3"]) == 0
    )


def test_the_base_is_found_in_the_adapter(adapter, tmp_path):
    folder = adapter(ZeroInitConfig(task_type="CAUSAL_LM", prompt_length=0, deltas=["lora"]))
    assert run(folder, tmp_path / "merged", "--dtype", "bfloat16") == 0
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype="auto").dtype == torch.bfloat16


def test_prompts_are_refused_with_the_alternative(adapter, tmp_path, capsys):
    folder = adapter(ZeroInitConfig(task_type="CAUSAL_LM", prompt_length=3))
    assert run(folder, tmp_path / "merged") == 2
    said = capsys.readouterr().err
    assert "has 3 prompts per layer" in said
    assert "generate --adapter" in said
    assert not (tmp_path / "merged").exists()


def test_a_missing_adapter_and_a_full_output_are_refused(adapter, tmp_path, capsys):
    assert run(tmp_path / "nothing", tmp_path / "merged") == 2
    assert "does not exist" in capsys.readouterr().err
    folder = adapter(ZeroInitConfig(task_type="CAUSAL_LM", prompt_length=0, deltas=["lora"]))
    assert run(folder, folder) == 2
    assert "not empty" in capsys.readouterr().err


def test_the_merged_model_asks_and_stops_as_its_adapter_did(adapter, tiny_base, tmp_path, capsys):
    folder = adapter(ZeroInitConfig(task_type="CAUSAL_LM", prompt_length=0, deltas=["output_scale"]))
    write_notes(folder, AdapterNotes(template="alpaca", base=str(tiny_base), max_length=64))
    merged = tmp_path / "merged"
    assert run(folder, merged) == 0
    assert "chat template is the template alpaca" in capsys.readouterr().out
    asking = ["--prompt", "Say the number 3", "--max-new-tokens", "2"]
    assert main(["generate", "--base", str(merged), *asking]) == 0
    assert "base, template alpaca" in capsys.readouterr().err
    told, ours = AutoTokenizer.from_pretrained(merged), Generator(tiny_llama(), byte_tokenizer(), "alpaca")
    turns = [Turn("user", "Say the number 3")]
    message = {"role": "user", "content": turns[0].text}
    assert told.apply_chat_template([message], return_dict=False) == ours.encode(turns)
    assert AutoModelForCausalLM.from_pretrained(merged).generation_config.eos_token_id == [2]
