"""Quantised bases through the product's own switch: loading, training, saving, generating, and refusing."""

import json
import logging
import math
import typing

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from llama_adapter import ZeroInitConfig, models, quantization
from llama_adapter.data import PaddingCollator
from llama_adapter.errors import UserError
from llama_adapter.generation.config import GenerateConfig
from llama_adapter.generation.session import Session
from llama_adapter.models import BaseModelConfig, attach_adapter, load_adapter, load_base, parameter_counts
from llama_adapter.training import Trainer, TrainingConfig
from llama_adapter.training.summary import start_table
from tests.tiny import byte_tokenizer

KINDS = {"nf4": "bitsandbytes", "int8": "torchao", "fp8": "torchao"}
TOLERANCE = {"nf4": 0.15, "int8": 0.02, "fp8": 0.05}
"""How much the loss of a quantised base may differ from the plain one's, relatively."""


@pytest.fixture(scope="module")
def base_dir(tmp_path_factory):
    """A tiny LLaMA that has learned a little, so that its loss says something, with a tokenizer."""
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=259,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(40):
        model(input_ids=text(), labels=text()).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def text():
    return torch.randint(3, 40, (4, 12), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def base(base_dir):
    """Loads the base; skips where the library is missing."""

    def load(kind="none", backend="auto", **options):
        if kind != "none":
            name = KINDS[kind] if backend == "auto" else backend
            pytest.importorskip(name, reason=f"{name} is not installed: pip install llama-adapter[quant]")
        settings = {"name_or_path": str(base_dir), "quantization": kind, "quantization_backend": backend}
        return load_base(BaseModelConfig(**settings, **options))

    return load


def loss_of(model):
    with torch.no_grad():
        return model(input_ids=text(), labels=text()).loss.item()


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_stays_close_and_the_weights_get_small(base, kind, caplog):
    plain = base()
    with caplog.at_level(logging.INFO):
        quantised = base(kind)
    assert loss_of(plain) < math.log(37)  # it has learned something
    assert loss_of(quantised) == pytest.approx(loss_of(plain), rel=TOLERANCE[kind])
    assert loss_of(quantised) != loss_of(plain)
    report = quantised.quantization_report
    assert report.quantised == 3 * 7
    assert report.method == f"{kind} ({KINDS[kind]})"
    assert str(report) in caplog.text
    assert report.bytes_before == sum(p.numel() * 4 for p in plain.parameters())
    linear = sum(p.numel() for n, p in plain.named_parameters() if "_proj" in n)
    bits = 8 * (report.bytes_after - (report.bytes_before - 4 * linear)) / linear
    assert bits == pytest.approx({"nf4": 5.8, "int8": 8.5, "fp8": 8.5}[kind], abs=0.3)  # tables weigh here
    assert parameter_counts(quantised) == (0, sum(p.numel() for p in plain.parameters()))
    assert not any(p.requires_grad for p in quantised.parameters())


@pytest.mark.parametrize("preset", ["v1", "v2"])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_every_part_as_through_the_plain_base_also_after_an_evaluation(base, kind, preset):
    gradients = []
    for model in (base(), base(kind)):
        torch.manual_seed(3)
        options = {"prompt_length": 4, "prompt_init_std": 0.5, "gate_init_std": 0.5, "prompt_layers": 3}
        adapted = attach_adapter(model, ZeroInitConfig(preset=preset, **options))
        adapted.eval()
        loss_of(adapted)  # bitsandbytes repacks 4-bit weights here, if it is let
        adapted.train()(input_ids=text(), labels=text()).loss.backward()
        gradients.append({n: p.grad for n, p in adapted.named_parameters() if p.requires_grad})
    plain, quantised = gradients
    assert plain.keys() == quantised.keys()
    for name, expected in plain.items():
        similarity = torch.cosine_similarity(expected.flatten(), quantised[name].flatten(), dim=0)
        assert quantised[name].norm() == pytest.approx(expected.norm(), rel=0.5), name
        assert similarity > 0.8, name


@pytest.mark.parametrize("kind", KINDS)
def test_training_through_the_trainer_with_evaluations_lowers_the_loss(base, kind, tmp_path):
    model = attach_adapter(base(kind), ZeroInitConfig(prompt_length=4, prompt_init_std=0.3))
    generator = torch.Generator().manual_seed(4)
    rows = []
    for number in range(4):
        ids = torch.randint(3, 40, (10,), generator=generator).tolist()
        rows.append({"input_ids": ids, "labels": ids, "record_id": f"a:{number}"})
    args = TrainingConfig(
        output_dir=str(tmp_path / "run"),
        max_steps=12,
        per_device_train_batch_size=4,
        learning_rate=3e-2,
        logging_steps=1.0,
        eval_strategy="steps",
        eval_steps=6.0,
        eval_on_start=True,
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = Trainer(
        model=model, args=args, train_dataset=rows, eval_dataset=rows, data_collator=PaddingCollator(0)
    )
    trainer.console.print(start_table(trainer))
    trainer.train()
    losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert len(losses) == 3
    assert losses[-1] < 0.98 * losses[0]
    folder = tmp_path / "adapter"
    trainer.save_trained(folder)
    values = {}
    for name in (kind, "none"):
        again = load_adapter(base(name), {"default": folder})
        checking = Trainer(model=again, args=args, eval_dataset=rows, data_collator=PaddingCollator(0))
        values[name] = checking.evaluate()["eval_loss"]
    assert values[kind] == pytest.approx(losses[-1], rel=1e-5)
    assert values["none"] == pytest.approx(losses[-1], rel=TOLERANCE[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_generate_answers_on_a_quantised_base(base, base_dir, kind, tmp_path):
    adapted = attach_adapter(base(kind), ZeroInitConfig(prompt_length=4, gate_init_std=1.0))
    adapted.save_pretrained(tmp_path / "adapter")
    config = {"base": str(base_dir), "adapter": [str(tmp_path / "adapter")], "device": "cpu"}
    session = Session(GenerateConfig(**config, quantization=kind, prompt=["x"], max_new_tokens=4))
    assert str(session.model.get_base_model().quantization_report).startswith(kind)
    ids = text()[:1]
    answers = [
        model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=4, do_sample=False)
        for model in (adapted, session.model)
    ]
    assert torch.equal(*answers)
    assert answers[0].shape[1] > ids.shape[1]


def test_int8_of_bitsandbytes_does_not_repeat_itself(base, caplog):
    model = base("int8", backend="bitsandbytes")
    assert loss_of(model) == pytest.approx(loss_of(base()), rel=0.05)
    assert "inputs will be cast" not in caplog.text


# the choice of a library, and its settings


@pytest.mark.parametrize(
    ("kind", "asked", "on_gpu", "chosen"),
    [
        ("nf4", "auto", True, "bitsandbytes"),
        ("nf4", "auto", False, "bitsandbytes"),
        ("int8", "auto", True, "bitsandbytes"),
        ("int8", "auto", False, "torchao"),
        ("int8", "bitsandbytes", False, "bitsandbytes"),
        ("int8", "torchao", True, "torchao"),
        ("fp8", "auto", True, "torchao"),
    ],
)
def test_the_library(monkeypatch, kind, asked, on_gpu, chosen):
    monkeypatch.setattr(quantization, "find_spec", lambda name: name)
    assert quantization.choose_backend(kind, asked, on_gpu) == chosen


@pytest.mark.parametrize(
    ("kind", "backend", "other"), [("nf4", "torchao", "bitsandbytes"), ("fp8", "bitsandbytes", "torchao")]
)
def test_what_a_library_does_not_offer(kind, backend, other):
    with pytest.raises(
        UserError, match=f"{kind}' is not offered by '{backend}'.*Use base.quantization_backend='{other}'"
    ):
        quantization.choose_backend(kind, backend, True)


def test_a_missing_library_names_the_pip_line(monkeypatch):
    monkeypatch.setattr(quantization, "find_spec", lambda _: None)
    with pytest.raises(
        UserError, match=r"needs 'bitsandbytes', which is not installed. Use `pip install llama"
    ):
        quantization.choose_backend("nf4", "auto", False)


@pytest.mark.parametrize(
    ("saved", "dtype", "computing"),
    [("float32", "auto", "float32"), ("bfloat16", "auto", "bfloat16"), ("float32", "bfloat16", "bfloat16")],
)
def test_settings_of_bitsandbytes(saved, dtype, computing):
    pytest.importorskip("bitsandbytes")
    config = LlamaConfig(dtype=saved)
    four = quantization.quantization_config("nf4", "bitsandbytes", config, dtype)
    assert four.load_in_4bit
    assert (four.bnb_4bit_quant_type, four.bnb_4bit_use_double_quant) == ("nf4", True)
    assert four.bnb_4bit_compute_dtype == getattr(torch, computing)
    assert quantization.quantization_config("int8", "bitsandbytes", config, dtype).load_in_8bit


@pytest.mark.parametrize(
    ("kind", "name"), [("int8", "Int8WeightOnlyConfig"), ("fp8", "Float8WeightOnlyConfig")]
)
def test_settings_of_torchao(kind, name):
    pytest.importorskip("torchao")
    config = quantization.quantization_config(kind, "torchao", LlamaConfig(), "auto")
    assert type(config.quant_type).__name__ == name


def test_the_two_verbs_offer_the_same_kinds():
    hints = typing.get_type_hints(GenerateConfig)["quantization"]
    assert typing.get_args(hints) == typing.get_args(quantization.Quantization)


# what was asked for and is not active is an error


def test_a_base_that_came_unquantised_is_refused(base, monkeypatch):
    pytest.importorskip("torchao")
    real = models.AutoModelForCausalLM.from_pretrained

    class Forgetful:
        @staticmethod
        def from_pretrained(*args, quantization_config=None, **kwargs):
            return real(*args, **kwargs)

    monkeypatch.setattr(models, "AutoModelForCausalLM", Forgetful)
    with pytest.raises(UserError, match="unquantised: 21 linear maps are not, such as .*Choose another"):
        base("int8")


def test_a_base_that_is_quantised_already_is_refused(base_dir, tmp_path):
    pytest.importorskip("torchao")
    settings = json.loads((base_dir / "config.json").read_text())
    (tmp_path / "config.json").write_text(
        json.dumps(settings | {"quantization_config": {"quant_method": "awq"}})
    )
    with pytest.raises(UserError, match="is saved quantised. Set base.quantization to none"):
        load_base(BaseModelConfig(name_or_path=str(tmp_path), quantization="int8"))


def test_sizes_of_plain_tensors():
    weight = torch.nn.Parameter(torch.zeros(3, 5, dtype=torch.bfloat16))
    assert quantization.stored_bytes(weight) == 30
    assert quantization.weight_count(weight) == 15
    assert not quantization.is_quantised(torch.nn.Linear(2, 2))
    assert not quantization.is_quantised(torch.nn.GELU())
