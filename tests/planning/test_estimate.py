"""From a training config to its figures, with nothing but a config.json."""

import io
import json

import pytest
import torch
from peft import LoraConfig
from rich.console import Console
from transformers import LlamaConfig

from llama_adapter.data import DataConfig, SourceConfig
from llama_adapter.errors import UserError
from llama_adapter.models import BaseModelConfig
from llama_adapter.planning import PlanConfig, as_json, as_tables, estimate
from llama_adapter.training import TrainingConfig

LORA = LoraConfig(r=8, target_modules=["q_proj", "v_proj"])


@pytest.fixture
def base(tmp_path):
    """The shape of a small LLaMA, no weights."""
    folder = tmp_path / "base"
    LlamaConfig(
        num_hidden_layers=2,
        hidden_size=64,
        intermediate_size=96,
        num_attention_heads=4,
        vocab_size=100,
        dtype=torch.bfloat16,
    ).save_pretrained(folder)
    return folder


def config(base, *, dtype="auto", adapter=LORA, **training):
    training = {"per_device_train_batch_size": 2, "use_cpu": True, "output_dir": "run"} | training
    return PlanConfig(
        base=BaseModelConfig(name_or_path=str(base), dtype=dtype),
        adapter=adapter,
        data=DataConfig(train=[SourceConfig(path="none.jsonl")], max_length=16),
        training=TrainingConfig(**training),
    )


def test_weights_are_counted_in_the_precision_asked_for(base):
    saved, full = estimate(config(base)), estimate(config(base, dtype="fp32"))
    assert (saved.dtype, full.dtype) == ("bfloat16", "float32")
    assert saved.frozen == full.frozen
    assert full.weight_bytes - saved.weight_bytes == 2 * saved.frozen
    assert saved.gradient_bytes == 4 * saved.trainable, "adapter weights stay in float32"
    assert saved.optimizer_bytes == pytest.approx(8 * saved.trainable, rel=0.01)
    total = saved.weight_bytes + saved.gradient_bytes + saved.optimizer_bytes + saved.saved_bytes
    assert saved.total_bytes == total


def test_accumulation_multiplies_flops_but_not_memory(base):
    one, four = estimate(config(base)), estimate(config(base, gradient_accumulation_steps=4))
    assert four.forward_flops == 4 * one.forward_flops
    assert four.backward_flops == 4 * one.backward_flops
    assert four.total_bytes == one.total_bytes


def test_optimizer_follows_the_setting(base):
    assert estimate(config(base, optim="sgd")).optimizer_bytes == 0
    other = estimate(config(base, optim="adafactor"))
    assert other.optimizer_bytes is None
    assert other.total_bytes is None
    assert any("Adafactor" in note for note in other.notes)


def test_checkpointing_says_what_it_cannot_estimate(base):
    found = estimate(config(base, activation_checkpointing=True))
    assert found.saved_bytes is None
    assert any("activation checkpointing" in note for note in found.notes)


def test_zero_init_adapter_is_planned_by_part(base):
    from llama_adapter import ZeroInitConfig

    found = estimate(config(base, adapter=ZeroInitConfig(prompt_length=5, prompt_layers=1)))
    parts = {part.part: part.trainable for part in found.parts if part.trainable}
    assert parts == {"adapter: prompt": 5 * 64, "adapter: gate": 4}
    lora = estimate(config(base))
    assert found.forward_flops == pytest.approx(lora.forward_flops, rel=0.05)


def test_report_shows_every_part_and_json_every_figure(base):
    found = estimate(config(base))
    console = Console(width=120, record=True, file=io.StringIO())
    for heading, table in as_tables(found).items():
        console.print(heading, table)
    text = console.export_text()
    for part in found.parts:
        assert part.part in text
    assert f"{found.trainable:,}" in text
    read = json.loads(as_json(found))
    assert read["trainable"] == found.trainable
    assert read["total_bytes"] == found.total_bytes


def test_a_folder_without_config_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"config.json"):
        estimate(config(tmp_path))
