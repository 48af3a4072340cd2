"""Settings: presets, derived values, contradictions, and how the command line reads them."""

import dataclasses

import jsonargparse
import pytest
from transformers import TrainingArguments

from llama_adapter.errors import UserError
from llama_adapter.training import TrainingConfig


@pytest.fixture
def config(tmp_path):
    return lambda **settings: TrainingConfig(**{"output_dir": str(tmp_path), "use_cpu": True, **settings})


def test_preset_v1_is_the_published_recipe_on_one_device(config):
    made = config(preset="v1")
    assert made.rows_per_step == 32
    assert made.gradient_accumulation_steps == 8
    assert made.learning_rate == pytest.approx(1.125e-3)
    assert (made.num_train_epochs, made.warmup_epochs, made.schedule) == (5.0, 2.0, "published")
    assert (made.adam_beta1, made.adam_beta2, made.weight_decay, made.max_grad_norm) == (0.9, 0.95, 0.02, 0.0)
    assert (made.loss_reduction, made.weight_decay_rule, made.dataloader_drop_last) == (
        "published",
        "published",
        True,
    )


def test_what_the_user_sets_wins_over_the_preset(config):
    made = config(preset="v1", num_train_epochs=2.0, warmup_epochs=0.5, per_device_train_batch_size=16)
    assert (made.num_train_epochs, made.warmup_epochs, made.per_device_train_batch_size) == (2.0, 0.5, 16)
    assert made.rows_per_step == 32
    assert config(preset="v1", learning_rate=5e-3).learning_rate == 5e-3


def test_accumulation_of_the_user_changes_the_rate_with_the_rows(config):
    made = config(preset="v1", gradient_accumulation_steps=2)
    assert made.rows_per_step == 8
    assert made.learning_rate == pytest.approx(9e-3 * 8 / 256)


def test_base_learning_rate_without_a_preset(config):
    assert config(base_learning_rate=0.256, per_device_train_batch_size=10).learning_rate == pytest.approx(
        0.01
    )


def test_two_learning_rates_are_refused(config):
    with pytest.raises(
        UserError, match=r"learning_rate=0\.01 and base_learning_rate=0\.009 were given\. Use one"
    ):
        config(learning_rate=0.01, base_learning_rate=0.009)


def test_a_copy_of_a_config_is_the_same_config(config):
    made = config(preset="v1", eval_strategy="no")
    names = [field.name for field in dataclasses.fields(made) if field.init and field.name not in ("debug",)]
    again = config(
        **{name: getattr(made, name) for name in ("preset", "learning_rate", "base_learning_rate", "seed")}
    )
    for name in ("learning_rate", "gradient_accumulation_steps", "num_train_epochs", "data_seed"):
        assert getattr(again, name) == getattr(made, name)
        assert name in names


def test_data_order_follows_the_seed(config):
    assert config(seed=5).data_seed == 5
    assert config(seed=5, data_seed=6).data_seed == 6


def test_what_the_host_refuses_is_a_user_error(config):
    with pytest.raises(
        UserError, match="do not fit together: .*load_best_model_at_end(.|\\n)*Set them as the message says"
    ):
        config(load_best_model_at_end=True, eval_strategy="epoch", save_strategy="steps")


def test_activation_checkpointing_is_never_reentrant(config):
    assert config(activation_checkpointing=True).activation_checkpointing_kwargs == {"use_reentrant": False}
    assert config().activation_checkpointing_kwargs is None


def test_every_field_of_ours_is_documented():
    import ast
    import inspect

    body = ast.parse(inspect.getsource(TrainingConfig)).body[0].body
    for field, after in zip(body, body[1:], strict=False):
        if isinstance(field, ast.AnnAssign):
            assert isinstance(after, ast.Expr), field.target.id
            assert isinstance(after.value, ast.Constant), field.target.id


def test_fields_of_the_host_that_we_redefine_still_exist():
    theirs = {field.name for field in dataclasses.fields(TrainingArguments)}
    assert {
        "output_dir",
        "learning_rate",
        "logging_steps",
        "logging_nan_inf_filter",
        "remove_unused_columns",
        "ddp_find_unused_parameters",
    } <= theirs
    added = set(TrainingConfig.__annotations__) - theirs
    assert not {"schedule", "preset", "resume", "loss_reduction"} - added


@dataclasses.dataclass(kw_only=True)
class Run:
    """A stand-in for the settings of a command."""

    training: TrainingConfig
    """The training part."""


def parsed(*arguments):
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_class_arguments(Run)
    return parser, parser.parse_args(list(arguments))


def test_parsing_reads_yaml_and_overrides_without_touching_a_device(tmp_path, monkeypatch):
    file = tmp_path / "run.yaml"
    file.write_text(
        f"training:\n  output_dir: {tmp_path}\n  learning_rate: 0.002\n"
        "  lr_scheduler_type: cosine\n  use_cpu: true\n"
    )
    created = []
    original = TrainingConfig.__post_init__
    monkeypatch.setattr(TrainingConfig, "__post_init__", lambda self: (created.append(1), original(self))[1])
    parser, settings = parsed(
        "--config", str(file), "--training.resume", "true", "--training.num_train_epochs", "2"
    )
    assert not created
    training = parser.instantiate(settings).training
    assert created == [1]
    assert (training.resume, training.learning_rate, training.num_train_epochs) == (True, 0.002, 2.0)
    assert training.lr_scheduler_type == "cosine"


@pytest.mark.parametrize(
    ("option", "value"),
    [("learning_rate", "fast"), ("preset", "v9"), ("loss_reduction", "mean"), ("max_steps", "1.5")],
)
def test_a_wrong_type_is_refused_by_name(option, value):
    with pytest.raises(jsonargparse.ArgumentError, match=f"training.{option}"):
        parsed(f"--training.{option}", value)
