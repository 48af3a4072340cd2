"""Checkpoints and resuming: stopped and continued equals never stopped, to the last bit."""

import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import LlamaForCausalLM, TrainerCallback

from llama_adapter.errors import UserError
from llama_adapter.models import AdapterNotes, read_notes
from llama_adapter.training import checkpoint as files


class Stop(Exception):
    """Stands in for a crash where a real one would cost a process."""


class StopInStep(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_substep_end(self, args, state, control, **kwargs):
        if state.global_step + 1 == self.step:
            raise Stop


def trainable(model):
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def outcome(trainer):
    """Everything that a resumed run must share with one that was never stopped."""
    losses = {
        r["step"]: (r["loss"], r["grad_norm"], r["learning_rate"])
        for r in trainer.state.log_history
        if "loss" in r
    }
    state = trainer.optimizer.state_dict()["state"]
    moments = {f"{key}.{name}": value for key, entry in state.items() for name, value in entry.items()}
    return losses, trainable(trainer.model), moments, torch.get_rng_state()


def assert_same(one, other):
    assert one[0] == other[0]
    for left, right in zip(one[1:3], other[1:3], strict=True):
        assert left.keys() == right.keys()
        assert all(torch.equal(left[name], right[name]) for name in left)
    assert torch.equal(one[3], other[3])


def log_lines(trainer):
    return [
        json.loads(line) for line in (Path(trainer.args.output_dir) / "log.jsonl").read_text().splitlines()
    ]


@pytest.mark.parametrize(("step", "moment", "resumed_from"), [(8, "substep", 6), (9, "save", 6)])
def test_killed_and_resumed_equals_never_stopped(
    resumable, base_dir, tmp_path, caplog, step, moment, resumed_from
):
    straight = resumable("straight")
    straight.train()
    worker = [sys.executable, str(Path(__file__).with_name("resume_worker.py"))]
    killed = subprocess.run(
        [*worker, str(base_dir), str(tmp_path / "killed"), str(step), moment],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads()), "PYTHONPATH": str(Path.cwd())},
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert files.last_complete(tmp_path / "killed").path.name == f"checkpoint-{resumed_from}"
    resumed = resumable("killed")
    resumed.train(resume_from_checkpoint=True)
    assert_same(outcome(resumed), outcome(straight))
    assert not list((tmp_path / "killed").glob(".incomplete*"))
    steps = [line["step"] for line in log_lines(resumed) if "loss" in line]
    assert steps == list(range(1, 13))  # nothing twice, nothing missing


@pytest.mark.parametrize(
    ("save_every", "stop_in", "settings"),
    [
        (4, 6, {}),  # the checkpoint lies at the end of an epoch
        (1, 2, {}),
        (
            5,
            11,
            {
                "schedule": "published",
                "warmup_epochs": 1.5,
                "warmup_steps": 0,
                "lr_scheduler_type": "linear",
            },
        ),
        (2, 9, {"eval_strategy": "steps", "eval_steps": 2.0, "load_best_model_at_end": True}),
        (3, 8, {"dataloader_num_workers": 0, "optim": "sgd", "max_grad_norm": 0.0}),
        (5, 11, {"batching": "tokens", "tokens_per_batch": 24}),
        (5, 11, {"batching": "packed", "tokens_per_batch": 24}),
    ],
)
def test_stopped_and_resumed_equals_never_stopped(resumable, save_every, stop_in, settings):
    settings = {"save_steps": float(save_every), **settings}
    straight = resumable("straight", **settings)
    straight.train()
    stopped = resumable("stopped", **settings)
    stopped.add_callback(StopInStep(stop_in))
    with pytest.raises(Stop):
        stopped.train()
    resumed = resumable("stopped", **settings)
    resumed.train(resume_from_checkpoint=True)
    assert_same(outcome(resumed), outcome(straight))
    assert resumed.state.best_metric == straight.state.best_metric


def test_without_a_complete_checkpoint_it_says_so_and_starts_fresh(resumable, capsys):
    straight = resumable("straight")
    straight.train()
    fresh = resumable("fresh")
    fresh.train(resume_from_checkpoint=True)
    assert "No complete checkpoint in" in capsys.readouterr().out.replace("\n", " ")
    assert_same(outcome(fresh), outcome(straight))


def test_a_damaged_checkpoint_is_passed_over_and_kept_aside(resumable, tmp_path, caplog):
    run = resumable("run")
    run.train()
    newest = tmp_path / "run" / "checkpoint-12"
    weights = newest / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    resumed = resumable("run")
    with caplog.at_level(logging.WARNING):
        resumed.train(resume_from_checkpoint=True)
    assert "checkpoint-12/adapter_model.safetensors has" in caplog.text
    assert (tmp_path / "run" / "damaged-checkpoint-12").is_dir()
    assert resumed.state.global_step == 12
    assert_same(outcome(resumed), outcome(run))


def test_a_named_damaged_checkpoint_is_refused(resumable, tmp_path):
    run = resumable("run")
    run.train()
    (tmp_path / "run" / "checkpoint-9" / "optimizer.pt").unlink()
    with pytest.raises(UserError, match=r"checkpoint-9 lacks optimizer\.pt\. Use a complete checkpoint"):
        resumable("run").train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-9"))


def test_a_checkpoint_of_another_adapter_is_refused(resumable, tmp_path):
    resumable("run", max_steps=3).train()
    other = resumable("run")
    other.model.active_peft_config.r = 8
    with pytest.raises(UserError, match=r"holds another adapter \(r: 4 there, 8 here\)"):
        other.train(resume_from_checkpoint=True)


def test_another_batch_layout_is_noticed(resumable, caplog):
    resumable("run", max_steps=3).train()
    with caplog.at_level(logging.WARNING):
        resumable("run", gradient_accumulation_steps=4).train(resume_from_checkpoint=True)
    assert "gradient_accumulation_steps was 2 when checkpoint-3 was written and is 4 now" in caplog.text


def test_the_same_rows_in_other_shares_are_the_same_batches(resumable, caplog):
    resumable("run", max_steps=3).train()
    shares = {"gradient_accumulation_steps": 4, "per_device_train_batch_size": 1}
    with caplog.at_level(logging.WARNING):
        resumable("run", **shares).train(resume_from_checkpoint=True)
    assert "sees other batches" not in caplog.text


def test_checkpoints_hold_the_adapter_only(resumable, tmp_path):
    run = resumable("run")
    run.train()
    weights = load_file(tmp_path / "run" / "checkpoint-3" / "adapter_model.safetensors")
    assert sum(value.numel() for value in weights.values()) == sum(
        p.numel() for p in trainable(run.model).values()
    )
    names = {path.name for path in (tmp_path / "run" / "checkpoint-3").iterdir()}
    assert not {"model.safetensors", "pytorch_model.bin"} & names


def test_save_total_limit_keeps_the_newest_and_the_best(resumable, tmp_path):
    run = resumable(
        "run",
        eval_strategy="steps",
        eval_steps=3.0,
        load_best_model_at_end=True,
        save_total_limit=2,
        learning_rate=0.5,
    )
    run.train()
    best = Path(run.state.best_model_checkpoint)
    kept = {path.name for path in files.checkpoint_folders(tmp_path / "run")}
    assert kept == {"checkpoint-12", best.name}
    assert best.parent == tmp_path / "run"
    recorded = json.loads((tmp_path / "run" / "checkpoint-12" / "trainer_state.json").read_text())
    assert recorded["best_model_checkpoint"] == str(best)
    evaluations = {r["step"]: r["eval_loss"] for r in run.state.log_history if "eval_loss" in r}
    assert best.name == f"checkpoint-{min(evaluations, key=evaluations.get)}"
    assert run.evaluate()["eval_loss"] == pytest.approx(
        min(evaluations.values()), rel=1e-6
    )  # the best one is loaded


def test_every_checkpoint_on_disk_is_complete_at_any_time(resumable, tmp_path, monkeypatch):
    defects = []
    publish = files.publish

    def watched(written, final, notes):
        defects.extend(files.defect(folder) for folder in files.checkpoint_folders(tmp_path / "run"))
        publish(written, final, notes)
        defects.extend(files.defect(folder) for folder in files.checkpoint_folders(tmp_path / "run"))

    monkeypatch.setattr(files, "publish", watched)
    resumable("run", save_total_limit=1).train()
    assert defects
    assert set(defects) == {None}


def test_final_adapter_loads_elsewhere_and_says_how(resumable, base_dir, tmp_path):
    run = resumable("run", max_steps=3)
    run.notes = AdapterNotes(template="alpaca", base=str(base_dir), max_length=64)
    run.train()
    folder = tmp_path / "run" / "adapter"
    run.save_result(folder)
    assert files.defect(folder) is None
    assert "\nimport llama_adapter\n" in (folder / "README.md").read_text()
    assert read_notes(folder) == run.notes
    assert not (folder / "training_args.bin").exists()
    again = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(base_dir), folder).eval()
    ids = torch.arange(1, 9)[None]
    with torch.no_grad():
        assert torch.equal(again(input_ids=ids).logits, run.model.eval()(input_ids=ids).logits)


def test_saving_the_adapter_again_replaces_it(resumable, tmp_path):
    run = resumable("run", max_steps=2)
    run.save_result(tmp_path / "adapter")
    before = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    run.train()
    run.save_result(tmp_path / "adapter")
    after = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert files.defect(tmp_path / "adapter") is None
    assert {path.name for path in tmp_path.iterdir() if path.name.startswith(".")} == set()
