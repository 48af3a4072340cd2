"""Experiments are read as the table's script reads them; what would not be followed is refused."""

import json

import pytest
from peft import get_peft_model

from benchmarks.method_comparison.__main__ import SMALL
from benchmarks.method_comparison.experiment import FOLDER, load_experiment
from llama_adapter.errors import UserError
from tests.tiny import tiny_llama

SHIPPED = sorted(path for path in FOLDER.glob("*/*") if path.is_dir())
LAYERS = {"smollm2": 30, "llama-3": 28}


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_every_shipped_experiment_loads_and_attaches(folder):
    experiment = load_experiment(folder)
    assert experiment.name == f"{folder.parent.name}/{folder.name}"
    if experiment.adapter is None:
        assert experiment.params.max_steps == 0
        return
    layers = next(number for name, number in LAYERS.items() if folder.name.startswith(name))
    model = get_peft_model(tiny_llama(num_hidden_layers=layers), experiment.adapter)
    trainable = [p for p in model.parameters() if p.requires_grad]
    assert trainable
    if folder.parent.name == "zero_init":
        prompts = (experiment.adapter.prompt_length, model.config.hidden_size)
        assert [tuple(p.shape) for p in trainable].count(prompts) == layers


def test_the_small_experiments_share_everything_but_the_rate():
    small = [load_experiment(folder) for folder in sorted(FOLDER.glob(SMALL))]
    trained = [one.params for one in small if one.adapter is not None]
    assert len(trained) == len(small) - 1 == 4
    assert len({(p.max_steps, p.batch_size, p.seed, p.query_template, p.dtype) for p in trained}) == 1


def folder_with(tmp_path, **params):
    folder = tmp_path / "base" / "small"
    folder.mkdir(parents=True)
    (folder / "training_params.json").write_text(json.dumps(params))
    return folder


def test_the_folders_settings_win_over_defaults_and_given_ones_over_both(tmp_path):
    folder = folder_with(tmp_path, batch_size=3, max_steps=7)
    params = load_experiment(folder, max_steps=5, model_id=None).params
    assert (params.batch_size, params.max_steps, params.seed) == (3, 5, 0)


def test_steps_are_not_given_to_what_only_evaluates(tmp_path):
    assert load_experiment(folder_with(tmp_path, max_steps=0), max_steps=5).params.max_steps == 0


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"compile": True}, "compile is True. Use False"),
        ({"optimizer_type": "lora+"}, "optimizer_type is 'lora\\+'. Use 'AdamW'"),
        ({"optimizer_kwargs": {"lr": 1e-3, "betas": [0, 1]}}, "betas.*Use no keys but"),
        ({"generation_kwargs": {"cache_implementation": "static"}}, "static.*Use no keys but"),
        ({"lr_scheduler": "linear"}, "'linear'. Use 'cosine'"),
        ({"query_template": "Question:"}, "'Question:'. Use one that contains"),
        ({"learning_rate": 1}, "\\['learning_rate'\\]. Use the table's settings"),
    ],
)
def test_what_would_not_be_followed_is_refused(tmp_path, setting, message):
    with pytest.raises(UserError, match=message):
        load_experiment(folder_with(tmp_path, **setting))


def test_a_folder_without_an_experiment_is_named(tmp_path):
    with pytest.raises(UserError, match=r"holds no experiment\. Use a folder METHOD/NAME"):
        load_experiment(tmp_path)
