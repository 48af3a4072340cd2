"""Any setting of a training run with any value is accepted, or refused by name; never anything else."""

import typing

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as effort
from hypothesis import strategies as st

from llama_adapter.errors import UserError
from llama_adapter.schema import field_types
from llama_adapter.training import TrainingConfig
from llama_adapter.training.run import TrainConfig
from llama_adapter.values import read_values

LEFT_OUT = {
    "output_dir", "deepspeed", "fsdp", "fsdp_config", "torch_compile", "torch_compile_backend",
    "torch_compile_mode", "tf32", "use_cpu", "parallelism_config", "push_to_hub", "hub_token", "log_level",
    "log_level_replica", "full_determinism", "enable_jit_checkpoint", "debug",
}  # fmt: skip
"""Settings that change this process, or need a machine that is not here."""

NAMES = [name for name in field_types(TrainingConfig) if name not in LEFT_OUT]
NUMBERS = st.sampled_from(
    [0, 1, -1, 2, 3, 0.5, 1.5, -0.5, 1e-30, 1e30, float("nan"), float("inf"), 2**32, 10**30]
)
WORDS = st.sampled_from(
    ["no", "epoch", "steps", "best", "none", "all", "wandb", "tensorboard", "adamw_8bit", "sgd", "cosine"]
    + ["loss", "published", "packed", "tokens", "a=b", "{}", "{a: 1}", "[1, 2]", "null", "true", "fork"]
    + ["v1", "sphinx", "~", ""]
)
VALUES = st.one_of(NUMBERS, WORDS, st.booleans(), st.none(), st.lists(st.integers(-1, 2), max_size=2),
                   st.dictionaries(WORDS, st.integers(-1, 2), max_size=2))  # fmt: skip
SUBSETS = st.dictionaries(st.sampled_from(NAMES), VALUES, min_size=1, max_size=3)
QUIET = {"deadline": None, "suppress_health_check": list(HealthCheck)}

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


def try_settings(given_settings, folder):
    """Reads settings as the command line does and creates them; a refusal must name one of them."""
    training = {"output_dir": folder, "use_cpu": True, **given_settings}
    try:
        read = read_values({"training": training}, TrainConfig)["training"]
        made = TrainingConfig(**read)
    except UserError as error:
        if not any(name in str(error) for name in given_settings):
            raise
        return
    assert made.per_device_train_batch_size >= 1
    assert made.rows_per_step >= 1


@effort(max_examples=150, **QUIET)
@given(SUBSETS)
def test_some_settings_are_accepted_or_named(given_settings):
    try_settings(given_settings, "somewhere")


@pytest.mark.slow
@effort(max_examples=20_000, **QUIET)
@given(SUBSETS)
def test_many_settings_are_accepted_or_named(given_settings):
    try_settings(given_settings, "somewhere")


NUMERIC = [name for name, hint in field_types(TrainingConfig).items() if name not in LEFT_OUT and not (
    {str, dict, bool} & set(typing.get_args(hint) or [hint]))]  # fmt: skip


@pytest.mark.parametrize("name", NUMERIC)
@pytest.mark.parametrize("value", [float("nan"), float("-inf"), 10**40, -7])
def test_no_number_of_a_run_is_unbounded(name, value):
    if name in ("local_rank", "include_for_metrics", "label_names"):
        return
    with pytest.raises(UserError, match=name):
        read_values({"training": {name: value}}, TrainConfig)
