"""The verb through the program."""

import json

from llama_adapter.cli import main


def write_config(tmp_path, base):
    (tmp_path / "run.yaml").write_text(
        f"base: {{name_or_path: {base}}}\n"
        "adapter: {prompt_length: 4, prompt_layers: 1}\n"
        "data: {train: [{path: none.jsonl}], max_length: 16}\n"
        "training: {per_device_train_batch_size: 2, use_cpu: true}\n"
    )


def test_plan_prints_tables_and_json_for_a_training_config(tmp_path, tiny_base, capsys):
    write_config(tmp_path, tiny_base)
    assert main(["plan", "run.yaml"]) == 0
    text = capsys.readouterr().out
    assert "adapter: prompt" in text
    assert "One optimizer step, 32 tokens per device" in text
    assert main(["plan", "run.yaml", "--json", "--training.per_device_train_batch_size", "4"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["rows"], found["length"], found["trainable"]) == (4, 16, 4 * 32 + 4)


def test_plan_leaves_with_2_when_the_base_is_missing(tmp_path, capsys):
    write_config(tmp_path, "nowhere/at/all")
    assert main(["plan", "run.yaml"]) == 2
    assert "nowhere/at/all" in capsys.readouterr().err
