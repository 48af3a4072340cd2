"""The verb through the program."""

import json
import sys
from dataclasses import replace

from llama_adapter.cli import main
from llama_adapter.hardware import find_device
from llama_adapter.planning import estimate


def write_config(tmp_path, base):
    (tmp_path / "run.yaml").write_text(
        f"base: {{name_or_path: {base}}}\n"
        "adapter: {prompt_length: 4, prompt_layers: 1}\n"
        "data: {train: [{path: rows.jsonl}], max_length: 64, template: plain, cache_dir: cache}\n"
        "training: {per_device_train_batch_size: 2, use_cpu: true}\n"
    )
    rows = [{"prompt": "b" * 4, "completion": "a" * size} for size in (1, 9, 30)]
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))


def test_plan_reads_the_data_and_prints_tables_of_100_columns(tmp_path, tiny_base, capsys):
    write_config(tmp_path, tiny_base)
    assert main(["plan", "run.yaml", "--gpu", "rtx4090"]) == 0
    text = capsys.readouterr().out
    assert "adapter: prompt" in text
    assert "Fits: " in text
    assert "nf4 base" in text
    assert "unverified" in text
    tables = [line for line in text.splitlines() if line[:1] in "┃│┏├└┡"]
    assert max(len(line) for line in tables) <= 100


def test_plan_as_json(tmp_path, tiny_base, capsys):
    write_config(tmp_path, tiny_base)
    words = ["plan", "run.yaml", "--json", "--compare", "false", "--gpu", "h100", "--num-gpus", "2"]
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["rows"], found["trainable"]) == (2, 4 * 32 + 4)
    assert found["statistics"]["records"] == 3
    assert found["length"] == found["statistics"]["longest"]
    assert found["device"]["devices"] == 2
    assert found["fits"] is True
    assert found["choices"] == []


def test_what_does_not_fit_comes_with_what_does(tmp_path, tiny_base, capsys, monkeypatch):
    small = replace(find_device("h100"), memory_gib=0.612)
    monkeypatch.setattr(sys.modules[estimate.__module__], "find_device", lambda name: small)
    write_config(tmp_path, tiny_base)
    words = ["plan", "run.yaml", "--training.per-device-train-batch-size", "128", "--gpu", "h100"]
    assert main([*words, "--compare", "false"]) == 0
    assert "Does not fit" in (text := capsys.readouterr().out)
    assert "--compare true" in text
    assert main(words) == 0
    assert "The cheapest change that fits is --" in capsys.readouterr().out


def test_plan_leaves_with_2_when_the_base_or_the_gpu_is_missing(tmp_path, tiny_base, capsys):
    write_config(tmp_path, "nowhere/at/all")
    assert main(["plan", "run.yaml"]) == 2
    assert "nowhere/at/all" in capsys.readouterr().err
    write_config(tmp_path, tiny_base)
    assert main(["plan", "run.yaml", "--gpu", "abacus"]) == 2
    assert "rtx4090" in capsys.readouterr().err
