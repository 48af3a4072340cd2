"""Asked for and not active is never silent."""

import logging
import shutil
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import nn
from transformers import TrainingArguments

from llama_adapter.errors import UserError
from llama_adapter.training import TrainingConfig
from llama_adapter.training.requested import (
    check_active,
    check_processes,
    warn_about_16_bit_weights,
    warn_about_loss_path,
)

needs_no_gpu = pytest.mark.skipif(
    torch.accelerator.is_available(), reason="says what a machine without GPU refuses"
)


@pytest.fixture
def config(tmp_path):
    return lambda **settings: TrainingConfig(**{"output_dir": str(tmp_path), **settings})


@needs_no_gpu
def test_fp16_on_the_cpu(config):
    with pytest.raises(UserError, match="fp16=True needs a GPU, and this run is on the CPU. Use bf16=true"):
        config(fp16=True)


@needs_no_gpu
def test_tf32_without_such_a_gpu(config):
    with pytest.raises(UserError, match="tf32=True needs an NVIDIA GPU"):
        config(tf32=True)


@needs_no_gpu
def test_bf16_on_the_cpu_is_active(config, trainer):
    assert config(bf16=True).mixed_precision == "bf16"
    assert trainer(bf16=True).accelerator.mixed_precision == "bf16"


def test_inductor_without_a_compiler(config, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(
        UserError, match="needs a C\\+\\+ compiler on the CPU, and g\\+\\+ was not found. Install"
    ):
        config(torch_compile=True, use_cpu=True)
    assert config(torch_compile=True, torch_compile_backend="aot_eager", use_cpu=True).torch_compile


def test_reentrant_checkpointing(config):
    with pytest.raises(UserError, match="asks for reentrant checkpointing, which loses gradients"):
        config(
            activation_checkpointing=True,
            activation_checkpointing_kwargs={"use_reentrant": True},
            use_cpu=True,
        )
    text = config(
        activation_checkpointing=True,
        activation_checkpointing_kwargs='{"use_reentrant": false}',
        use_cpu=True,
    )
    assert text.activation_checkpointing_kwargs == {"use_reentrant": False}


def test_two_ways_of_checkpointing(config):
    with pytest.raises(UserError, match="'mlp' and activation_checkpointing were both asked for. Use one"):
        config(activation_checkpointing=True, checkpointing="mlp", use_cpu=True)
    with pytest.raises(UserError, match="checkpointing_every is 0. Use 1 or more"):
        config(checkpointing="mlp", checkpointing_every=0, use_cpu=True)
    assert config(checkpointing="selective", use_cpu=True).checkpointing == "selective"


def test_batch_size_search_and_a_rate_per_256_rows(config):
    with pytest.raises(UserError, match="auto_find_batch_size=True changes the rows per step"):
        config(auto_find_batch_size=True, base_learning_rate=1e-3, use_cpu=True)


def test_fields_that_do_nothing_here_warn(config, caplog):
    with caplog.at_level(logging.WARNING):
        config(do_predict=True, use_cpu=True)
    assert "do_predict=true has no effect here: use `llama-adapter generate`" in caplog.text


def test_fsdp_in_one_process(trainer):
    with pytest.raises(UserError, match="fsdp only works in distributed training"):
        trainer(fsdp="full_shard")


def test_several_processes_that_form_no_group(monkeypatch):
    """torchrun without a GPU and without use_cpu: each would train alone, into one folder."""
    alone = asked(world_size=1, device=torch.device("cpu"))
    check_processes(alone)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="started 2 processes .* train alone on cpu. Set use_cpu=true"):
        check_processes(alone)
    check_processes(asked(world_size=2, device=torch.device("cpu")))


def test_evaluation_without_records(trainer):
    with pytest.raises(UserError, match="refused its settings: .*eval_dataset"):
        trainer(eval_strategy="steps", eval_steps=1.0)


def asked(**settings):
    defaults = {
        "n_gpu": 1,
        "fsdp": None,
        "deepspeed": None,
        "mixed_precision": "no",
        "use_liger_kernel": False,
    }
    made = Mock(spec=TrainingArguments)
    made.configure_mock(**{**defaults, **settings})
    return made


def active(kind=DistributedType.NO, precision="no", layout=None):
    made = Mock(spec=Accelerator)
    made.configure_mock(
        distributed_type=kind,
        mixed_precision=precision,
        device=torch.device("cpu"),
        parallelism_config=layout,
    )
    return made


@pytest.mark.parametrize(
    ("request_", "found", "message"),
    [
        ({"n_gpu": 2}, {}, "One process sees 2 GPUs.*torchrun --nproc-per-node 2"),
        ({"fsdp": "full_shard"}, {"kind": DistributedType.MULTI_CPU}, "accelerate runs MULTI_CPU on cpu"),
        (
            {"deepspeed": "zero2.json"},
            {"kind": DistributedType.MULTI_GPU},
            "deepspeed='zero2.json' was asked for",
        ),
        ({"mixed_precision": "bf16"}, {}, "'bf16' was asked for, but accelerate uses 'no'"),
        ({"mixed_precision": "no"}, {"precision": "fp16"}, "'no' was asked for, but accelerate uses 'fp16'"),
        ({}, {"layout": SimpleNamespace(cp_enabled=True, sp_enabled=False)}, "splits sequences over devices"),
    ],
)
def test_a_request_that_accelerate_did_not_follow(request_, found, message):
    check_active(asked(), active())
    with pytest.raises(UserError, match=message):
        check_active(asked(**request_), active(**found))


# torch hides this warning of its own graph breaks from users, but not from a run where warnings are errors
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_torch_compile_is_active_and_gives_the_same_loss_without_all_logits(trainer, records):
    rows = records(4)
    common = {"train": rows, "evaluation": rows, "per_device_train_batch_size": 4, "max_steps": 3}
    plain = trainer(**common)
    plain.train()
    compiled = trainer(torch_compile=True, torch_compile_backend="aot_eager", folder="compiled", **common)
    head, positions = compiled.model.get_output_embeddings(), []
    head.register_forward_hook(lambda module, inputs, output: positions.append(output.shape[1]))
    torch._dynamo.utils.counters.clear()
    compiled.train()
    assert type(compiled.model_wrapped).__name__ == "OptimizedModule"
    assert positions == [1] * 3
    assert "forward" not in head.__dict__  # given back when training is over
    losses = [[r["loss"] for r in made.state.log_history if "loss" in r] for made in (plain, compiled)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert compiled.evaluate()["eval_loss"] == pytest.approx(plain.evaluate()["eval_loss"], rel=1e-5)


def test_liger_says_that_the_loss_is_not_its_own(caplog):
    with caplog.at_level(logging.WARNING):
        warn_about_loss_path(asked(use_liger_kernel=True))
    assert "use_liger_kernel=true replaces norms and MLPs, but not the loss" in caplog.text


def test_16_bit_weights_are_told_unless_fp32_is_kept_of_them(caplog):
    low, kept = nn.Linear(2, 2, dtype=torch.bfloat16), nn.Linear(2, 2)
    with caplog.at_level(logging.WARNING):
        warn_about_16_bit_weights(kept, active())
        warn_about_16_bit_weights(low.requires_grad_(False), active())
        warn_about_16_bit_weights(low.requires_grad_(True), active(DistributedType.FSDP, "bf16"))
        assert not caplog.text
        warn_about_16_bit_weights(low, active())
    assert "Weights of ['torch.bfloat16'] are trained" in caplog.text
