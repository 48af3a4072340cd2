"""The ``train`` command, whole: from files to an adapter that answers the same in another object."""

import json
from pathlib import Path

import jsonargparse
import pytest
import torch
import yaml
from peft import LoraConfig, PeftModel

from llama_adapter import ZeroInitConfig, arguments
from llama_adapter.data import DataConfig, SourceConfig
from llama_adapter.errors import UserError
from llama_adapter.models import BaseModelConfig, load_adapter, load_base, load_tokenizer, read_notes
from llama_adapter.training import TrainConfig, TrainingConfig, build_trainer, train
from llama_adapter.training import checkpoint as files
from tests.training.image_runs import write_records
from tests.vision.tiny_encoders import config_of

# peft warns when a LoRA config gets its own default explicitly, which is how jsonargparse creates it.
hands_every_default_over = pytest.mark.filterwarnings("ignore:`loftq_config` specified:UserWarning")

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def data_file(tmp_path):
    """Alpaca records with answers of unequal length."""
    items = [{"instruction": f"Say {n}", "input": "", "output": "yes " * (n % 3 + 1)} for n in range(12)]
    path = tmp_path / "items.json"
    path.write_text(json.dumps(items))
    return path


@pytest.fixture
def config(tmp_path, data_file, chat_base_dir):
    """Makes the config of a small run."""

    def make(adapter=None, evaluation=True, **settings):
        defaults = {
            "output_dir": str(tmp_path / "run"),
            "max_steps": 4,
            "per_device_train_batch_size": 2,
            "learning_rate": 1e-2,
            "logging_steps": 1.0,
            "save_steps": 2.0,
            "use_cpu": True,
        }
        return TrainConfig(
            base=BaseModelConfig(name_or_path=str(chat_base_dir)),
            adapter=adapter or ZeroInitConfig(prompt_length=3, prompt_init_std=0.3),
            data=DataConfig(
                train=[SourceConfig(path=str(data_file), rows="0:9")],
                evaluation=[SourceConfig(path=str(data_file), rows="9:")] if evaluation else [],
                template="alpaca",
                cache_dir=str(tmp_path / "cache"),
            ),
            training=TrainingConfig(**{**defaults, **settings}),
        )

    return make


@pytest.mark.parametrize(
    "adapter",
    [None, LoraConfig(r=2, target_modules=["q_proj"]), ZeroInitConfig(preset="v2", prompt_length=2)],
)
def test_a_run_leaves_an_adapter_that_loads_elsewhere(config, adapter, chat_base_dir, tmp_path, capsys):
    settings = config(adapter, eval_on_start=True)
    assert train(settings) == 0
    folder = tmp_path / "run" / "adapter"
    assert read_notes(folder).template == "alpaca"
    assert "import llama_adapter" in (folder / "README.md").read_text()
    logged = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in logged if "loss" in record] == [1, 2, 3, 4]
    evaluations = [record["eval_loss"] for record in logged if "eval_loss" in record]
    assert len(evaluations) == 2
    base = load_base(settings.base)
    tokenizer = load_tokenizer(settings.base)
    loaded = load_adapter(base, {"default": folder})
    trainer = build_trainer(config(adapter, output_dir=str(tmp_path / "again")))
    trainer.model = loaded
    assert trainer.evaluate()["eval_loss"] == pytest.approx(evaluations[-1], rel=1e-6)
    assert tokenizer.pad_token == "<unk>"
    printed = capsys.readouterr().out
    assert "trainable of" in printed
    assert f"--adapter {folder}" in printed.replace("\n", "")


def test_settings_and_versions_are_written_down(config, tmp_path):
    train(config(save_strategy="no"))
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["base"]["dtype"] == "auto"
    assert run["adapter"]["prompt_length"] == 3
    assert run["data"]["train"][0]["rows"] == "0:9"
    assert run["training"]["learning_rate"] == 1e-2
    assert {"torch", "transformers", "peft"} <= run["versions"].keys()


def test_two_runs_are_equal_to_the_last_bit(config, tmp_path):
    for name in ("one", "two"):
        train(config(output_dir=str(tmp_path / name), save_strategy="no"))
    weights = [
        (tmp_path / name / "adapter" / "adapter_model.safetensors").read_bytes() for name in ("one", "two")
    ]
    assert weights[0] == weights[1]


def test_resume_continues_and_ends_where_a_straight_run_ends(config, tmp_path, capsys):
    train(config(output_dir=str(tmp_path / "straight")))
    train(config())
    for leftover in ("checkpoint-4", "adapter"):
        (tmp_path / "run" / leftover).rename(tmp_path / leftover)
    capsys.readouterr()
    train(config(resume=True))
    assert f"Resuming from {tmp_path / 'run' / 'checkpoint-2'}." in capsys.readouterr().out.replace("\n", "")
    weights = [
        (tmp_path / name / "adapter" / "adapter_model.safetensors").read_bytes()
        for name in ("straight", "run")
    ]
    assert weights[0] == weights[1]


def logged(tmp_path, name):
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    return [record[name] for record in lines if name in record]


def test_a_resumed_run_takes_the_rate_it_is_given(config, tmp_path, capsys):
    train(config(max_steps=2))
    train(config(max_steps=4, learning_rate=1e-4, weight_decay=0.5, resume=True))
    assert logged(tmp_path, "learning_rate") == pytest.approx([1e-2, 5e-3, 5e-5, 2.5e-5])
    printed = capsys.readouterr().out
    assert "training.learning_rate: 0.01 -> 0.0001" in printed
    assert "training.weight_decay: 0.0 -> 0.5" in printed


@pytest.mark.parametrize("steps", [2, 3])
def test_a_run_at_its_end_trains_nothing_inside_an_epoch_too(config, tmp_path, capsys, steps):
    train(config(max_steps=3, save_steps=1.0))
    result = tmp_path / "run" / "adapter" / "adapter_model.safetensors"
    before, losses = result.read_bytes(), logged(tmp_path, "loss")
    train(config(max_steps=steps, save_steps=1.0, resume=True))
    assert f"The checkpoint is at step 3 of {steps}: nothing is left to train." in capsys.readouterr().out
    assert result.read_bytes() == before
    assert logged(tmp_path, "loss") == losses


def test_other_records_are_refused_when_resuming(config, data_file):
    train(config())
    items = json.loads(data_file.read_text())
    items[0]["output"] = "no"
    data_file.write_text(json.dumps(items))
    with pytest.raises(UserError, match="another setting of the records"):
        train(config(resume=True))


def test_a_refused_run_deletes_nothing(config, tmp_path):
    train(config())
    before = sorted(path.name for path in (tmp_path / "run").iterdir())
    refused = config(overwrite_output_dir=True)
    refused.base.name_or_path = str(tmp_path / "nowhere")
    with pytest.raises(UserError):
        train(refused)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == before


def test_a_run_stops_early_where_evaluations_are_no_better(config, tmp_path):
    stopping = {
        "early_stopping_patience": 1,
        "eval_strategy": "steps",
        "eval_steps": 1.0,
        "eval_on_start": True,
    }
    train(config(max_steps=20, learning_rate=0.0, save_strategy="no", **stopping))
    assert logged(tmp_path, "eval_loss")
    assert len(logged(tmp_path, "loss")) < 4
    with pytest.raises(UserError, match="early_stopping_threshold is 0.1, which has no effect"):
        config(early_stopping_threshold=0.1)


def test_resume_from_a_named_checkpoint(config, tmp_path, capsys):
    train(config())
    train(config(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2")))
    assert "Resuming from" in capsys.readouterr().out


def test_an_earlier_run_is_not_mixed_with_a_new_one(config, tmp_path):
    train(config())
    with pytest.raises(
        UserError, match=r"holds checkpoints of an earlier run, up to checkpoint-4\. Use --training\.resume"
    ):
        train(config())
    train(config(overwrite_output_dir=True, max_steps=2))
    assert [folder.name for folder in files.checkpoint_folders(tmp_path / "run")] == ["checkpoint-2"]


def test_evaluation_that_was_asked_for_needs_records(config):
    for settings in ({"eval_strategy": "steps", "eval_steps": 1.0}, {"eval_on_start": True}):
        with pytest.raises(UserError, match="meets an empty data.evaluation"):
            train(config(evaluation=False, **settings))


def test_without_evaluation_data_there_is_no_evaluation(config, tmp_path):
    train(config(evaluation=False, save_strategy="no"))
    assert "eval_loss" not in (tmp_path / "run" / "log.jsonl").read_text()


def test_the_best_checkpoint_is_what_is_saved(config, tmp_path, capsys):
    best = {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 2.0}
    train(config(learning_rate=3.0, **best))  # a rate that ruins the model step by step
    records = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    evaluations = [record["eval_loss"] for record in records if "eval_loss" in record]
    assert len(evaluations) == 2  # what is saved was evaluated at its step
    assert f"{min(evaluations):.4f} (step" in capsys.readouterr().out


def test_the_adapters_first_weights_follow_the_seed(config, tmp_path):
    prompts = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        trainer = build_trainer(config(output_dir=str(tmp_path / name), seed=seed))
        prompts.append(
            next(p for n, p in trainer.model.named_parameters() if "zero_init_prompt" in n).detach()
        )
    assert torch.equal(prompts[0], prompts[1])
    assert not torch.equal(prompts[0], prompts[2])


def parse(arguments):
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_class_arguments(TrainConfig, instantiate=True)
    settings = vars(parser.instantiate(parser.parse_args(arguments)))
    settings.pop("config", None)
    return TrainConfig(**settings)


@hands_every_default_over
@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_every_example_is_a_config(file, tmp_path):
    settings = parse(
        ["--config", str(file), "--training.output_dir", str(tmp_path), "--training.use_cpu", "true"]
    )
    assert settings.training.rows_per_step > 0
    assert settings.data.train


def make_images_tiny(content, folder):
    """An example with images on a tiny encoder, two layers and a few pictures; one row per step."""
    vision = content["vision"]
    sees = config_of("clip", folder, projection=vision.get("projection", False))
    vision |= {"kind": "transformers", "name_or_path": sees.name_or_path, "levels": [-1]}
    vision.pop("weights", None)
    if content["conditioner"]["kind"] == "visual_queries":
        content["conditioner"] |= {"width": 8, "depth": 1, "num_heads": 2, "mlp_width": 16}
    if content["conditioner"]["kind"] == "bind":
        content["conditioner"] = {"class_path": "imagebind_llm.BindConfig", "init_args": {"inner_width": 8}}
        vision["output"] = "global"
    if "early_layers" in content["conditioner"]:
        content["conditioner"]["early_layers"] = 1
    for group in content.get("groups", []):
        group["parts"] = [part.replace("[0:8]", "[0:1]").replace("[12:]", "[1:]") for part in group["parts"]]
    content.pop("start_from", None)  # an adapter folder of another example
    content["data"].pop("feature_cache")
    content["data"]["max_length"] = 512  # a token of the tiny model is a byte
    rows = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2}
    shorter = {"epoch_parts": 2, "num_train_epochs": 6} if "pretrain" in content["training"]["preset"] else {}
    content["training"] |= rows | shorter
    return write_records(folder)


@hands_every_default_over
@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("[!s]*.yaml")), ids=lambda path: path.name)
def test_every_example_runs_on_a_tiny_model(file, tmp_path, chat_base_dir, data_file):
    content = yaml.safe_load(file.read_text())
    if "vision" in content:
        data_file = make_images_tiny(content, tmp_path)
    content["base"] = {"name_or_path": str(chat_base_dir)}
    content["data"] |= {"train": [{"path": str(data_file)}], "cache_dir": str(tmp_path / "cache")}
    if content["data"].get("evaluation"):
        content["data"]["evaluation"] = [{"path": str(data_file), "rows": "0:3"}]
    if "prompt_layers" in content.get("adapter", {}):
        content["adapter"]["prompt_layers"] = 2 if "early_layers" in content.get("conditioner", {}) else 1
    content["training"] |= {"output_dir": str(tmp_path / "run"), "use_cpu": True}
    if "preset" not in content["training"]:  # a preset's warm-up needs its epochs
        content["training"]["max_steps"] = 2
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(content))
    assert train(parse(["--config", str(file)])) == 0
    if "tuning" in content:
        assert load_base(BaseModelConfig(name_or_path=str(tmp_path / "run" / "model"))).num_parameters()
        return
    adapter = PeftModel.from_pretrained(
        load_base(BaseModelConfig(name_or_path=str(chat_base_dir))), tmp_path / "run" / "adapter"
    )
    assert adapter.active_adapter == "default"


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (
            ["--adapter.prompt_length", "abc"],
            "--adapter.prompt_length: got 'abc'. Use a whole number or null.",
        ),
        (["--adapter.gate=both"], "--adapter.gate: got 'both'. Use one of head, scalar or null."),
    ],
)
def test_a_wrong_value_for_one_of_several_adapters_is_named(option, said):
    given = ["--base.name_or_path", "x", "--adapter.prompt_layers", "2", *option]
    with pytest.raises(UserError) as refused:
        arguments.parse(TrainConfig, given, "program")
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("adapter", "kind"),
    [
        ("{prompt_length: 7}", ZeroInitConfig),
        ("{r: 4, target_modules: [q_proj]}", LoraConfig),
        ("{class_path: peft.LoraConfig, init_args: {r: 4, target_modules: [q_proj]}}", LoraConfig),
    ],
)
@pytest.mark.filterwarnings(
    "ignore:`loftq_config` specified:UserWarning"
)  # jsonargparse hands every default over
def test_adapters_in_yaml(adapter, kind, tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(
        f"base: {{name_or_path: x}}\nadapter: {adapter}\ndata: {{train: [{{path: a.json}}]}}\n"
        f"training: {{output_dir: {tmp_path}, use_cpu: true}}\n"
    )
    assert type(parse(["--config", str(file)]).adapter) is kind
