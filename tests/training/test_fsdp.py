"""Full tuning, sharded over processes by FSDP2 on gloo, equals one process at the same global batch.

Tolerances: 1e-5 in fp32, where only sums have another order. A mixture of experts balances each part
of a batch by itself, so it is compared with one process that accumulates as many parts.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from sphinx_ft import SphinxForConditionalGeneration

PLAIN = ("llama", "tied", "sphinx", "whole_files")
EXPERTS = ("mixtral", "sphinx_moe")
ROOT = Path(__file__).parents[2]
WORKER = Path(__file__).with_name("fsdp_worker.py")


def launch(output, *runs, processes=1, split=1):
    """The outcome of each run of one launch."""
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    output.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, *(several if processes > 1 else []), str(WORKER), str(output), *runs],
        capture_output=True,
        text=True,
        timeout=400,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "SPLIT": str(split)},
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return {
        path.stem: json.loads(path.read_text()) | {"folder": path.with_suffix("")}
        for path in output.glob("*.json")
    }


def weights(outcome):
    (file,) = (outcome["folder"] / "model").glob("model*.safetensors")
    return load_file(file)


def assert_equal(found, wanted, rel=1e-5, atol=1e-5):
    for key in ("loss", "grad_norm", "eval_loss"):
        assert found[key] == pytest.approx(wanted[key], rel=rel), key
    one, other = weights(found), weights(wanted)
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=rel, atol=atol)


def test_two_processes_hold_half_each_and_save_one_whole_model(tmp_path):
    one = launch(tmp_path / "one", "llama")["llama"]
    two = launch(tmp_path / "two", "llama", processes=2)["llama"]
    assert_equal(two, one)
    assert two["kind"].startswith("FSDP")
    assert [2 * held for held in two["bytes"]] == one["bytes"]
    model = AutoModelForCausalLM.from_pretrained(two["folder"] / "model")
    found = model.state_dict()
    assert all(torch.equal(found[name], value) for name, value in weights(two).items())


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """Outcomes of one, two and four processes, and of runs that go on from others' checkpoints."""
    root = tmp_path_factory.mktemp("fsdp")
    one = launch(root / "one", *PLAIN, "bf16")
    parts = {count: launch(root / f"parts{count}", *EXPERTS, split=count) for count in (2, 4)}
    four = launch(root / "four", *PLAIN, *EXPERTS, processes=4)
    resumed = [f"{name}<{root}/four/{name}" for name in ("llama", "sphinx", "whole_files")]
    two = launch(root / "two", *PLAIN, *EXPERTS, "bf16", processes=2)
    further = launch(root / "further", *resumed, f"bf16<{root}/one/bf16", processes=2)
    launch(root / "alone", f"llama<{root}/four/llama")
    return {"one": one, "parts": parts, 2: two, 4: four, "further": further, "root": root}


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("name", PLAIN + EXPERTS)
def test_sharded_equals_one_process(launched, name, processes):
    wanted = launched["one"][name] if name in PLAIN else launched["parts"][processes][name]
    found = launched[processes][name]
    assert_equal(found, wanted)
    for held, whole in zip(found["bytes"], wanted["bytes"], strict=True):
        assert whole / processes <= held < 1.05 * whole / processes  # the last rows of odd tensors


@pytest.mark.slow
def test_computing_in_bf16_keeps_weights_in_fp32(launched):
    """The norms compute in bf16, too, which autocast in one process leaves in fp32."""
    found, wanted = launched[2]["bf16"], launched["one"]["bf16"]
    assert found["loss"] == pytest.approx(wanted["loss"], rel=2e-3)
    assert found["bytes"] == [whole / 2 for whole in wanted["bytes"]]
    assert {value.dtype for value in weights(found).values()} == {torch.float32}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama", "sphinx", "whole_files"])
def test_four_processes_checkpoint_is_resumed_by_two(launched, name):
    found, wanted = launched["further"][name], launched["one"][name]
    assert found["loss"][-2:] == pytest.approx(wanted["loss"][-2:], rel=1e-5)
    assert_equal({**found, **{key: wanted[key] for key in ("loss", "grad_norm")}}, wanted)


@pytest.mark.slow
def test_sharded_and_whole_checkpoints_are_not_taken_for_each_other(launched):
    alone = (launched["root"] / "alone" / "llama.refused").read_text()
    assert "was written with fsdp, and this run is without it" in alone
    sharded = (launched["root"] / "further" / "bf16.refused").read_text()
    assert "was written without fsdp, and this run is with it" in sharded


@pytest.mark.slow
def test_a_sphinx_model_is_whole_with_its_settings(launched):
    model = SphinxForConditionalGeneration.from_pretrained(launched[2]["sphinx"]["folder"] / "model")
    other = SphinxForConditionalGeneration.from_pretrained(launched["one"]["sphinx"]["folder"] / "model")
    assert model.config.encoders == other.config.encoders
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, other.state_dict()[name], rtol=1e-5, atol=2e-6)
