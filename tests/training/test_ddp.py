"""Two processes over gloo equal one process at the same global batch. Tolerance: 1e-5 relative, fp32 sums in
another order."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from llama_adapter.training import checkpoint as files
from tests.training.conftest import DDP_RUNS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def launched(base_dir, tmp_path_factory):
    """Output folder, results and printed text of one torchrun launch."""
    output = tmp_path_factory.mktemp("ddp")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, str(Path(__file__).with_name("ddp_worker.py")), str(base_dir), str(output)],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return output, torch.load(output / "results.pt", weights_only=True), done.stdout


def one_process(single, **settings):
    """The same run in this process: twice the batch, or twice the accumulation."""
    trainer = single(**settings)
    trainer.train()
    history = trainer.state.log_history
    return {
        "losses": [record["loss"] for record in history if "loss" in record],
        "evaluations": [record["eval_loss"] for record in history if "eval_loss" in record],
        "eval_tokens": [record["eval_tokens"] for record in history if "eval_tokens" in record],
        "tokens": trainer.meter.total.tokens,
        "weights": {name: p.detach() for name, p in trainer.model.named_parameters() if p.requires_grad},
    }


def assert_close(two, one):
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-5)
    assert two["evaluations"] == pytest.approx(one["evaluations"], rel=1e-5)
    assert two["eval_tokens"] == one["eval_tokens"]
    assert two["tokens"] == one["tokens"]
    for name, value in two["weights"].items():
        torch.testing.assert_close(value, one["weights"][name], rtol=1e-5, atol=1e-6)


def test_token_mean_equals_one_process_with_twice_the_batch(launched, single):
    assert_close(launched[1]["token"], one_process(single, per_device_train_batch_size=4))


def test_rows_that_do_not_divide_by_the_ranks_are_trained_once(launched, single):
    assert_close(launched[1]["rows"], one_process(single, **DDP_RUNS["rows"], per_device_train_batch_size=4))


def test_published_mean_equals_one_process_with_twice_the_accumulation(launched, single):
    # The mean over ranks of batch means is the mean over as many accumulated batches.
    settings = {"loss_reduction": "published", "per_device_train_batch_size": 2}
    one = one_process(single, gradient_accumulation_steps=2, **settings)
    assert_close(launched[1]["published"], one)


@pytest.mark.parametrize("name", ["tokens", "packed", "left_over"])
def test_batches_of_unequal_rows_equal_one_process_with_twice_the_accumulation(launched, single, name):
    settings = dict(DDP_RUNS[name])
    accumulation = 2 * settings.pop("gradient_accumulation_steps")
    one = one_process(single, gradient_accumulation_steps=accumulation, **settings)
    assert_close(launched[1][name], one)


def test_resumed_on_two_ranks_equals_never_stopped(launched):
    straight, resumed = launched[1]["token"], launched[1]["resumed"]
    assert resumed["losses"] == straight["losses"]
    assert all(torch.equal(value, straight["weights"][name]) for name, value in resumed["weights"].items())


def test_checkpoints_hold_the_state_of_both_ranks_and_are_complete(launched):
    folder = launched[0] / "token" / "checkpoint-4"
    assert files.defect(folder) is None
    names = set(json.loads((folder / "manifest.json").read_text())["files"])
    assert {"rng_state_0.pth", "rng_state_1.pth", "optimizer.pt", "adapter_model.safetensors"} <= names


def test_only_the_first_rank_prints_and_logs(launched):
    output, _, printed = launched
    assert printed.count("only rank 0 prints") == 1
    steps = [
        json.loads(line)["step"] for line in (output / "published" / "log.jsonl").read_text().splitlines()
    ]
    assert steps.count(1) == 1


def test_sharding_that_accelerate_ignores_on_cpu_is_an_error(launched):
    assert "fsdp=True was asked for, but accelerate runs" in launched[1]["fsdp"]
