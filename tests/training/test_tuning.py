"""Runs that train a model's own weights: what moves, in which precision, what is saved, what is refused."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from llama_adapter import ZeroInitConfig
from llama_adapter.data import DataConfig, SourceConfig, Turn
from llama_adapter.errors import UserError
from llama_adapter.generation.config import SamplingConfig, SessionConfig
from llama_adapter.generation.session import Session
from llama_adapter.models import BaseModelConfig, load_base_config, read_notes
from llama_adapter.planning.fake_model import build_on_meta
from llama_adapter.training import TrainConfig, TrainingConfig, build_trainer, train
from llama_adapter.training.groups import GroupConfig
from llama_adapter.training.tuning import FullTuning


@pytest.fixture
def config(tmp_path, chat_base_dir):
    """Makes the config of a small run; keyword arguments are those of ``TrainConfig``."""

    def make(**given):
        items = [{"instruction": f"Say {n}", "input": "", "output": "yes " * (n % 3 + 1)} for n in range(12)]
        path = tmp_path / "items.json"
        path.write_text(json.dumps(items))
        settings = {
            "base": BaseModelConfig(name_or_path=str(chat_base_dir)),
            "tuning": FullTuning(),
            "data": DataConfig(
                train=[SourceConfig(path=str(path))], template="alpaca", cache_dir=str(tmp_path / "cache")
            ),
            "training": TrainingConfig(
                output_dir=str(tmp_path / "run"),
                max_steps=4,
                per_device_train_batch_size=2,
                learning_rate=1e-2,
                logging_steps=1.0,
                save_steps=2.0,
                use_cpu=True,
            ),
        }
        return TrainConfig(**{**settings, **given})

    return make


def test_a_whole_model_is_trained_saved_and_asked(config, tmp_path, chat_base_dir, capsys):
    assert train(config()) == 0
    folder = tmp_path / "run" / "model"
    assert f"generate --base {folder} --prompt" in capsys.readouterr().out.replace("\n", "")
    before, after = (load_file(path / "model.safetensors") for path in (chat_base_dir, folder))
    assert before.keys() == after.keys()
    assert all(not torch.equal(before[name], value) for name, value in after.items())
    assert read_notes(folder).template == "alpaca"
    session = Session(SessionConfig(base=str(folder)))
    assert session.generator().template_name == "alpaca"
    (answer,) = session.generator().answer([[Turn("user", "Say 1")]], SamplingConfig(max_new_tokens=3))
    assert isinstance(answer, str)
    stops = json.loads((folder / "generation_config.json").read_text())["eos_token_id"]
    assert set(stops) == session.generator()._stop_ids()
    told = AutoTokenizer.from_pretrained(folder).apply_chat_template
    asked = told([{"role": "user", "content": "Say 1"}], return_dict=False)
    assert asked == session.generator().encode([Turn("user", "Say 1")])
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["tuning"] == {"trainable": None}


def test_only_chosen_parameters_train(config, chat_base_dir, tmp_path):
    train(config(tuning=FullTuning(trainable=r"layers\.1\..*proj|norm")))
    before, after = (
        load_file(path / "model.safetensors") for path in (chat_base_dir, tmp_path / "run" / "model")
    )
    moved = {name for name, value in after.items() if not torch.equal(before[name], value)}
    assert moved == {name for name in after if "layers.1." in name and "proj" in name or "norm" in name}


def test_weights_that_train_are_kept_in_float32(config, chat_base_dir, tmp_path, caplog):
    half = tmp_path / "half"
    trained = build_trainer(config()).model
    trained.to(torch.bfloat16).save_pretrained(half)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (half / name).write_bytes((chat_base_dir / name).read_bytes())
    kept = build_trainer(config(base=BaseModelConfig(name_or_path=str(half))))
    assert {weight.dtype for weight in kept.model.parameters()} == {torch.float32}
    assert "small updates are rounded away" not in caplog.text
    config(base=BaseModelConfig(name_or_path=str(half), dtype="bf16"))
    assert "small updates are rounded away" in caplog.text


def test_parts_are_modules_with_rates_of_their_own(config):
    groups = [GroupConfig(parts=["model"]), GroupConfig(parts=["lm_head"], learning_rate=0.5)]
    trainer = build_trainer(config(groups=groups))
    rates = {
        id(weight): group["lr"]
        for group in trainer.create_optimizer().param_groups
        for weight in group["params"]
    }
    assert rates[id(trainer.model.lm_head.weight)] == 0.5
    assert rates[id(trainer.model.model.embed_tokens.weight)] == 1e-2


def test_plans_see_what_would_train(config, chat_base_dir):
    planned = config(tuning=FullTuning(trainable="norm"))
    model = build_on_meta(load_base_config(planned.base), planned, torch.float32)
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert trained
    assert all("norm" in name for name in trained)
    assert {weight.device.type for weight in model.parameters()} == {"meta"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tuning": None}, "neither adapter nor tuning is set"),
        ({"adapter": ZeroInitConfig(prompt_length=2)}, "both are set"),
        ({"start_from": "x"}, r"\['start_from'\] came with tuning"),
    ],
)
def test_what_does_not_go_together_is_refused(config, given, message):
    with pytest.raises(UserError, match=message):
        config(**given)


def test_quantised_bases_and_odd_names_are_refused(config, chat_base_dir):
    with pytest.raises(UserError, match="does not go with training the base's own weights"):
        config(base=BaseModelConfig(name_or_path=str(chat_base_dir), quantization="int8"))
    with pytest.raises(UserError, match="no regular expression"):
        FullTuning(trainable="(")
    with pytest.raises(UserError, match="which no parameter's name has"):
        build_trainer(config(tuning=FullTuning(trainable="prompt")))


def test_processes_that_would_train_alone_are_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(TrainingConfig, "world_size", 1)
    with pytest.raises(
        UserError, match=r"A launcher started 2 processes \(WORLD_SIZE\), but this one would train alone"
    ):
        TrainingConfig(output_dir=str(tmp_path))
