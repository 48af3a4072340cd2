"""The presets of ImageBind-LLM, from the command line, on a tiny base and a tiny ImageBind."""

import json
import shutil

import pytest
from safetensors.torch import load_file

from llama_adapter.cli import main
from tests.examples.conftest import EXAMPLES
from tests.imagebind_llm.bind_runs import make_imagebind

SHORT = [
    "--base.dtype=float32",
    "--data.max_length=400",  # a character is a token here
    "--training.num_train_epochs=2",
    "--training.epoch_parts=2",
    "--training.warmup_epochs=1",
    "--training.per_device_train_batch_size=1",
    "--training.gradient_accumulation_steps=2",
    "--training.use_cpu=true",
    "--training.bf16=false",
    "--training.disable_tqdm=true",
]


@pytest.fixture
def folder(example, tmp_path, monkeypatch, tiny_base):
    """Data, base and ImageBind where the presets look for them."""
    monkeypatch.chdir(tmp_path)
    example("reduced_7b").write_data(tmp_path / "data")
    make_imagebind(tmp_path / "models" / "imagebind")
    return tmp_path


def moved(first, second):
    """Which parts of an adapter changed between two folders, or came."""
    before, after = (load_file(path / "adapter_model.safetensors") for path in (first, second))
    return {name.split("zero_init_")[1].split(".")[0] for name in after if name not in before}, {
        name.split("zero_init_")[1].split(".")[0] for name in before if not before[name].equal(after[name])
    }


def test_both_stages_run_and_answer(folder, tiny_base, capsys):
    for stage in ("stage1", "stage2"):
        path = EXAMPLES / f"imagebind_llm_{stage}_7b.yaml"
        words = ["train", str(path), *SHORT, f"--base.name_or_path={tiny_base}"]
        assert main(words) == 0, capsys.readouterr().err
    first, second = (folder / "runs" / f"imagebind-llm-{stage}-7b" for stage in ("stage1", "stage2"))
    came, changed = moved(first / "adapter", second / "adapter")
    assert (came, changed) == ({"norm", "bias", "lora"}, set())
    same = [(run / "adapter" / "conditioner.safetensors").read_bytes() for run in (first, second)]
    assert same[0] == same[1]
    for run, rate in ((first, 1.25e-5), (second, 1.25e-4)):
        log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        assert max(record.get("learning_rate", 0) for record in log) <= rate
    shutil.copy(next((folder / "data" / "coco" / "train2014").iterdir()), "asked.jpg")
    inputs = ["--image", "asked.jpg:0.5", "--text", "a shape:0.5"]
    assert main(["generate", "--adapter", str(second / "adapter"), *inputs, "--prompt", "What is it?"]) == 0
