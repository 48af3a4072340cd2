"""Our entries for PEFT's public table load there, attach there, and train the way its script trains."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftConfig, get_peft_model

import benchmarks.method_comparison
from llama_adapter import ZeroInitConfig
from tests.tiny import tiny_llama

EXPERIMENTS = Path(benchmarks.method_comparison.__file__).parent / "experiments"
PUBLIC = sorted(EXPERIMENTS.glob("zero_init/llama-3.2-3B-*"))
LAYERS, HEADS, EOS = 28, 4, 2

# fields of the table's training settings as of July 2026; its script refuses any other
TRAINING_FIELDS = {
    "attn_implementation", "autocast_adapter_dtype", "batch_size", "batch_size_eval", "compile", "dtype",
    "eval_steps", "generation_kwargs", "grad_norm_clip", "init_kv_cache_prefix", "lr_scheduler",
    "max_seq_length", "max_steps", "model_id", "optimizer_kwargs", "optimizer_type", "query_template", "seed",
    "use_amp", "use_gc",
}  # fmt: skip


def adapted(folder, use_gc):
    """A model of Llama-3.2-3B's depth, prepared in the order of the table's script."""
    base = tiny_llama(num_hidden_layers=LAYERS).to(torch.bfloat16)
    if use_gc:
        base.enable_input_require_grads()
        base.gradient_checkpointing_enable()
    config = PeftConfig.from_pretrained(str(folder))
    return get_peft_model(base, config, autocast_adapter_dtype=True), config


def test_the_two_entries_are_there():
    assert [folder.name.partition("3B-")[2] for folder in PUBLIC] == [
        "lr_5e-3",
        "prompts_bias_scale_norm-lr_1e-3",
    ]


@pytest.mark.parametrize("folder", PUBLIC, ids=lambda folder: folder.name)
def test_training_settings_are_those_of_the_table(folder):
    settings = json.loads((folder / "training_params.json").read_text())
    assert settings.keys() <= TRAINING_FIELDS
    assert settings["model_id"] == "meta-llama/Llama-3.2-3B"
    # as AdaptionPrompt's entry: the same work
    assert (settings["max_steps"], settings["batch_size"], settings["max_seq_length"]) == (3000, 4, 512)
    assert "{query}" in settings["query_template"]


def test_the_first_entry_has_the_prompts_of_the_adaption_prompt_entry():
    model, config = adapted(PUBLIC[0], use_gc=False)
    assert isinstance(config, ZeroInitConfig)
    prompts = [p for name, p in model.named_parameters() if p.requires_grad and p.ndim == 2]
    assert [tuple(p.shape) for p in prompts] == [(100, 32)] * LAYERS
    trainable, _ = model.get_nb_trainable_parameters()
    assert trainable == LAYERS * (100 * 32 + HEADS)


# the script uses transformers' older name
@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated:FutureWarning")
@pytest.mark.parametrize("folder", PUBLIC, ids=lambda folder: folder.name)
def test_the_scripts_calls_train_every_tensor(folder, tmp_path):
    """Loss before training in inference mode, steps, generation in inference mode, steps, save, log."""
    settings = json.loads((folder / "training_params.json").read_text())
    model, config = adapted(folder, settings["use_gc"])
    optimizer = torch.optim.AdamW(model.parameters(), **settings["optimizer_kwargs"])
    before = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    ids = torch.randint(3, 259, (4, 12))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    model.eval()
    with torch.inference_mode():
        model(**batch, pad_token_id=EOS)  # the script passes it to the forward too
    for _ in range(2):
        model.train()
        for _ in range(2):
            optimizer.zero_grad()
            model(**batch, labels=ids, num_items_in_batch=ids.numel()).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), settings["grad_norm_clip"])
            optimizer.step()
        model.eval()
        with torch.inference_mode():
            new = model.generate(**batch, max_new_tokens=2, pad_token_id=EOS)
        assert new.shape[0] == 4

    moved = {name for name, p in model.named_parameters() if name in before and not p.equal(before[name])}
    assert moved == before.keys()
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    model.save_pretrained(tmp_path)
    assert (tmp_path / "adapter_model.safetensors").stat().st_size > 0
    json.dumps(config.to_dict())  # what the script writes into its result


def test_the_command_of_the_page_makes_the_method_known_to_the_script(tmp_path, repository):
    page = (repository / "docs/method-comparison.md").read_text()
    (command,) = re.findall(r"^python (-c .*llama_adapter, runpy.*)$", page, flags=re.MULTILINE)
    (tmp_path / "utils.py").write_text("from peft import PeftConfig\n")  # found in the script's own folder
    (tmp_path / "run.py").write_text(
        "import argparse\n"
        "from utils import PeftConfig\n"
        "if __name__ == '__main__':\n"
        "    parser = argparse.ArgumentParser()\n"
        "    parser.add_argument('-v', '--verbose', action='store_true')\n"
        "    parser.add_argument('path_experiment')\n"
        "    config = PeftConfig.from_pretrained(parser.parse_args().path_experiment)\n"
        "    print(type(config).__name__, config.prompt_length)\n"
    )
    shutil.copytree(EXPERIMENTS, tmp_path / "experiments")
    done = subprocess.run(
        [sys.executable, *shlex.split(command)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(repository)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "ZeroInitConfig 100", done.stderr
