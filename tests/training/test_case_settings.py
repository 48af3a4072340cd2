"""One wrong value in the file of a run: exit code 2 and one message with its key, before anything is read."""

import pytest
import yaml

from llama_adapter.cli import main

RUN = {
    "base": {"name_or_path": "nowhere", "dtype": "fp32"},
    "adapter": {"prompt_length": 6, "prompt_layers": 2},
    "data": {"template": "chat", "max_length": 256, "train": [{"path": "nowhere.jsonl"}]},
    "training": {"output_dir": "run", "learning_rate": 1e-2, "num_train_epochs": 2, "use_cpu": True},
}

WRONG = [
    ("training.learning_rate", [-1, ".nan", ".inf", "fast", True, [1]]),
    ("training.num_train_epochs", [0, -1, ".inf"]),
    ("training.max_steps", [0, -2, 1.5]),
    ("training.per_device_train_batch_size", [0, -1]),
    ("training.per_device_eval_batch_size", [0]),
    ("training.gradient_accumulation_steps", [0]),
    ("training.loss_chunk_rows", [0, -1]),
    ("training.checkpointing_every", [0]),
    ("training.epoch_parts", [0]),
    ("training.eval_steps", [0, -1, 1.5]),
    ("training.logging_steps", [0]),
    ("training.save_steps", [0]),
    ("training.save_total_limit", [-1]),
    ("training.seed", [-1, 2**32, 10**30, "1:30"]),
    ("training.max_grad_norm", [-1]),
    ("training.label_smoothing_factor", [-0.1, 1]),
    ("training.optim", ["adamx"]),
    ("training.report_to", ["wandbb"]),
    ("training.dataloader_num_workers", [-1]),
    ("training.metric_for_best_model", ["accuracy"]),
    ("training.accelerator_config", [{"a": 1}]),
    ("training.fsdp_config", [{"a": 1}]),
    ("training.lr_scheduler_kwargs", [{"a": 1}]),
    ("training.tokens_per_batch", [0, 512]),
    ("training.early_stopping_patience", [0, 3]),
    ("data.template", ["alpacca"]),
    ("data.max_length", [0, 1, -3, 10**20]),
    ("base.dtype", ["fp8"]),
    ("base.attn_implementation", ["flash"]),
    ("adapter.prompt_length", [-1]),
    ("adapter.prompt_layers", [[-1], "all"]),  # -1 alone is all but the first
]


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in WRONG for value in values])
def test_a_wrong_value_ends_with_one_message(key, value, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    section, name = key.split(".")
    content = {**RUN, section: {**RUN[section], name: value}}
    (tmp_path / "run.yaml").write_text(
        yaml.safe_dump(content).replace("'.nan'", ".nan").replace("'.inf'", ".inf")
    )
    assert main(["train", "run.yaml"]) == 2
    said = capsys.readouterr().err.strip()
    assert name in said
    assert "nowhere" not in said
    assert said.count("\n") == 0
    assert not (tmp_path / "run").exists()
