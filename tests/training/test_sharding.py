"""Whole models from checkpoints, in one process; several are in ``test_fsdp_checkpoints``."""

from pathlib import Path

import pytest
import torch
from torch import nn

from llama_adapter.errors import UserError
from llama_adapter.training.sharding import load_optimizer, load_weights, stored_by_fsdp
from tests.training.sharded_runs import build, llama, mixtral, one_process

SAVING = {"save_strategy": "steps", "save_steps": 2.0}


@pytest.mark.parametrize("name", ["mixtral", "tied"])
def test_resumed_equals_never_stopped_to_the_bit(name, tmp_path):
    """Mixtral's experts have other names in files than in the model."""
    straight = one_process(name, tmp_path, 2, **SAVING)
    resumed = one_process(name, tmp_path, 2, resume=f"{name}-alone/checkpoint-2", **SAVING)
    assert resumed["losses"] == straight["losses"]
    assert all(torch.equal(weight, straight["weights"][key]) for key, weight in resumed["weights"].items())


def test_the_best_checkpoint_is_loaded_whole(tmp_path):
    best = {"eval_strategy": "steps", "eval_steps": 2.0, "load_best_model_at_end": True}
    rising = {"learning_rate": 0.3, "warmup_steps": 6.0, "max_steps": 6}  # the longer, the worse
    trainer = build("mixtral", tmp_path / "run", tmp_path, **SAVING, **best, **rising)
    trainer.train()
    folder = trainer.state.best_model_checkpoint
    assert folder != str(tmp_path / "run" / "checkpoint-6")
    chosen = mixtral()
    load_weights(chosen, Path(folder))
    assert all(
        torch.equal(weight, trainer.model.get_parameter(name)) for name, weight in chosen.named_parameters()
    )
    reported = min(entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(reported, rel=1e-6)


def test_weights_of_16_bits_come_back_as_they_were(tmp_path):
    saved = llama().bfloat16()
    saved.save_pretrained(tmp_path)
    read = llama(attention_bias=False).bfloat16()
    nn.init.zeros_(read.lm_head.weight)
    load_weights(read, tmp_path)
    assert torch.equal(read.lm_head.weight, saved.lm_head.weight)
    assert read.lm_head.weight.dtype is torch.bfloat16


def test_another_model_is_refused(tmp_path):
    llama().save_pretrained(tmp_path)
    assert not stored_by_fsdp(tmp_path)
    with pytest.raises(UserError, match="another model: 9 tensors do not fit, such as 'model.layers.2"):
        load_weights(larger(), tmp_path)
    larger().save_pretrained(tmp_path / "larger")
    with pytest.raises(UserError, match="another model: 9 tensors do not fit"):
        load_weights(llama(), tmp_path / "larger")
    with pytest.raises(UserError, match="into Linear, which is no model of transformers"):
        load_weights(nn.Linear(2, 2), tmp_path)


def test_another_optimiser_is_refused(tmp_path):
    model = llama()
    optimizer = torch.optim.AdamW(model.parameters())
    torch.save(torch.optim.AdamW(model.model.parameters()).state_dict(), tmp_path / "optimizer.pt")
    with pytest.raises(UserError, match=r"groups of \[20\] tensors, this run's of \[21\]. Train the same"):
        load_optimizer(model, optimizer, tmp_path)


def larger():
    """A model that has one layer more."""
    model = llama()
    model.config.num_hidden_layers = 3
    return type(model)(model.config)
