"""Two processes over gloo equal one process on the same records, although one of them often has no image.

Tolerance: 1e-5 relative, fp32 sums in another order.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from llama_adapter.training import build_trainer
from tests.training.image_runs import DDP_RUNS, ddp_config

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("images")


@pytest.fixture(scope="module")
def launched(chat_base_dir, root):
    """What two processes found."""
    for name in DDP_RUNS:
        ddp_config(root, chat_base_dir, name, "unused", ranks=2)  # writes pictures, records and the encoder
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, str(Path(__file__).with_name("ddp_images_worker.py")), str(chat_base_dir), str(root)],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return torch.load(root / "results.pt", weights_only=True)


@pytest.mark.parametrize("name", sorted(DDP_RUNS))
def test_two_processes_equal_one(launched, root, chat_base_dir, name):
    two = launched[name]
    one = build_trainer(ddp_config(root, chat_base_dir, name, "one", ranks=1))
    one.train()
    history = [record for record in one.state.log_history if "loss" in record]
    assert two["losses"] == pytest.approx([record["loss"] for record in history], rel=1e-5)
    assert two["norms"] == pytest.approx([record["grad_norm"] for record in history], rel=1e-4)
    for key, weight in one.unwrapped.named_parameters():
        if weight.requires_grad:
            torch.testing.assert_close(two["weights"][key], weight.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["cached", "live", "global_features"])
def test_one_process_had_no_image_while_the_other_had(launched, name):
    assert any(one != other for one, other in zip(*launched[name]["seen"], strict=True))


def test_no_process_had_an_image(launched):
    assert not any(any(seen) for seen in launched["text"]["seen"])
