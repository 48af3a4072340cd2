"""DeepSpeed through accelerate in two CPU processes equals one process; skipped where it is not installed.

Its CPU operations are compiled when they are first used, which takes minutes once. Tolerance: 1e-5 relative.
"""

import importlib.util

import pytest
import torch
from safetensors.torch import load_file

from tests.training.sharded_runs import launch, one_process, planned

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="needs `pip install deepspeed`"),
]
SAVING = {"save_strategy": "steps", "save_steps": 2.0}


@pytest.mark.parametrize("stage", [2, 3])
def test_two_processes_equal_one(stage, tmp_path, monkeypatch):
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    monkeypatch.setenv("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # accelerate sets it, with DeepSpeed there
    config = {
        "zero_optimization": {"stage": stage, "stage3_gather_16bit_weights_on_model_save": True},
        "zero_force_ds_cpu_optimizer": False,
        "zero_allow_untested_optimizer": True,
        "gradient_clipping": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
    }
    run = planned("llama", 2, save=True, deepspeed=config, **SAVING)
    sharded = launch(2, tmp_path, {"llama": run})["llama"]
    resumed = launch(2, tmp_path, {"resumed": run | {"resume": "llama/checkpoint-2"}})["resumed"]
    alone = one_process("llama", tmp_path, 2)
    for what in ("losses", "norms"):
        assert sharded[what] == pytest.approx(alone[what], rel=1e-5)
        assert resumed[what] == pytest.approx(alone[what], rel=1e-5)
    assert sharded["evaluation"] == pytest.approx(alone["evaluation"], rel=1e-5)
    trained = load_file(tmp_path / "llama" / "trained" / "model.safetensors")
    assert trained.keys() == alone["weights"].keys()
    for name, weight in trained.items():
        torch.testing.assert_close(weight, alone["weights"][name], rtol=1e-5, atol=1e-5)
