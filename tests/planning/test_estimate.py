"""From a training config to its figures, with nothing but a config.json."""

import pytest
import torch
from peft import LoraConfig

from llama_adapter import ZeroInitConfig
from llama_adapter.data import DataConfig, SourceConfig
from llama_adapter.errors import UserError
from llama_adapter.models import BaseModelConfig
from llama_adapter.planning import PlanConfig, estimate, simulation
from llama_adapter.planning.estimate import this_device
from llama_adapter.training import TrainingConfig
from tests.planning.small import write_base

LORA = LoraConfig(r=8, target_modules=["q_proj", "v_proj"])
STATED = {"tokens_per_record": 12.0, "records": 100}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The shape of a small LLaMA, no weights."""
    return write_base(tmp_path_factory.mktemp("base"), torch.bfloat16)


def config(base, *, dtype="auto", adapter=LORA, plan=None, **training):
    training = {"per_device_train_batch_size": 2, "use_cpu": True, "output_dir": "run"} | training
    return PlanConfig(
        base=BaseModelConfig(name_or_path=str(base), dtype=dtype),
        adapter=adapter,
        data=DataConfig(train=[SourceConfig(path="none.jsonl")], max_length=16),
        training=TrainingConfig(**training),
        **({"gpu": "h100", "compare": False} | STATED | (plan or {})),
    )


@pytest.fixture(scope="module")
def planned(base):
    """Plans by the options of ``config``; each is made once, as a plan takes seconds of simulated steps."""
    made = {}

    def plan(**options):
        key = repr(sorted(options.items()))
        if key not in made:
            made[key] = estimate(config(base, **options))
        return made[key]

    return plan


def test_weights_are_counted_in_the_precision_asked_for(planned):
    saved, full = planned(), planned(dtype="fp32")
    assert (saved.precision, full.precision) == ("bf16", "fp32")
    assert saved.frozen == full.frozen
    assert full.memory["weights"] - saved.memory["weights"] == 2 * saved.frozen
    assert saved.memory["optimizer"] == pytest.approx(8 * saved.trainable, rel=0.01)


def test_mixed_precision_over_full_weights_keeps_copies(planned):
    plain, mixed = planned(dtype="fp32"), planned(dtype="fp32", bf16=True)
    assert mixed.precision == "fp32 with bf16 autocast"
    assert mixed.memory["weight copies"] > 0.5 * mixed.frozen
    assert "weight copies" not in plain.memory


def test_optimizers_that_are_not_torchs_are_left_out_with_a_note(planned):
    assert "optimizer" not in planned(optim="sgd").memory
    other = planned(optim="adafactor")
    assert "optimizer" not in other.memory
    assert any("Adafactor" in note for note in other.notes)


def test_checkpointing_computes_more_and_keeps_less(planned):
    none, layer = planned(), planned(activation_checkpointing=True)
    assert layer.checkpointing == "layer"
    assert layer.backward_flops > none.backward_flops
    assert layer.forward_flops == none.forward_flops
    assert layer.tensor_bytes < none.tensor_bytes


def test_the_policy_left_to_the_trainer_is_named(planned):
    assert planned().checkpointing == "selective"
    assert planned(checkpointing="mlp").checkpointing == "mlp"


def test_a_zero_init_adapter_is_planned_by_part(planned):
    found = planned(adapter=ZeroInitConfig(prompt_length=5, prompt_layers=1))
    parts = {part.part: part.trainable for part in found.parts if part.trainable}
    assert parts == {"adapter: prompt": 5 * 64, "adapter: gate": 4}


def test_more_devices_share_an_epoch_and_a_preset_keeps_its_rows(planned):
    one = planned(preset="v1", per_device_train_batch_size=4)
    many = planned(plan={"num_gpus": 4}, preset="v1", per_device_train_batch_size=4)
    assert (one.accumulation, many.accumulation) == (8, 2)
    assert one.load.optimizer_steps == many.load.optimizer_steps
    assert many.load.batches == -(-one.load.batches // 4)
    assert many.memory["DDP buckets"] > 0
    assert many.device.devices == 4


def test_time_follows_mfu_rate_and_epochs(planned):
    usual = planned(num_train_epochs=2)
    half = planned(plan={"mfu": 0.2})
    assert half.device.seconds_per_epoch >= usual.device.seconds_per_epoch
    assert usual.epochs == 2
    assert planned(max_steps=25).epochs == pytest.approx(0.5)
    names = [one.device for one in usual.devices]
    assert {"a100-40gb", "a100-80gb", "h100", "h200", "l4", "rtx4090", "rtx3090", "cpu"} == set(names)
    assert "t4" in [one.device for one in planned(plan={"gpu": "t4"}).devices]


def test_missing_data_are_said_and_full_rows_assumed(planned):
    found = planned(plan={"tokens_per_record": None, "records": None})
    assert found.load.tokens == 16
    assert any("Data not read" in note and "--tokens-per-record" in note for note in found.notes)


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ({"mfu": 0}, "mfu is 0. Use a share"),
        ({"num_gpus": 0}, "num_gpus is 0. Use 1"),
        ({"records": None}, "tokens_per_record=12.0 and records=None .*Use both"),
        ({"gpu": "tpu"}, "'tpu' is not known. Use one of"),
    ],
)
def test_wrong_settings_are_refused(base, plan, said):
    with pytest.raises(UserError, match=said):
        estimate(config(base, plan=plan))


def test_this_machines_gpu_is_known_or_said_not_to_be(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA L4")
    assert this_device().name == "l4"
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Some card")
    with pytest.raises(UserError, match="'Some card' are not known. Use --gpu"):
        this_device()


def test_a_model_that_needs_values_is_refused_with_a_way_out(monkeypatch, base):
    def looking(model, rows, settings, fake):
        return next(model.parameters()).sum().item()

    monkeypatch.setattr(simulation, "measure_step", looking)
    with pytest.raises(UserError, match=r"cannot be planned, .* without content.*Use a short run"):
        estimate(config(base))
