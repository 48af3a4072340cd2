"""Settings that count rows meet batches that do not."""

import logging

import pytest

from llama_adapter.errors import UserError
from llama_adapter.training import TrainingConfig


@pytest.fixture
def config(tmp_path):
    return lambda **settings: TrainingConfig(**{"output_dir": str(tmp_path), "use_cpu": True, **settings})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"tokens_per_batch": 512, "batching": "rows"},
            "tokens_per_batch=512 has no effect with .* Set batching",
        ),
        ({"tokens_per_batch": 1}, r"tokens_per_batch is 1\. Use 2 or more"),
        ({"base_learning_rate": 1e-3}, "base_learning_rate=0.001 is scaled by the rows .* Set learning_rate"),
        ({"preset": "v1"}, "base_learning_rate=0.009 .* Set learning_rate instead .also with a preset"),
        ({"train_sampling_strategy": "group_by_length"}, "'group_by_length' orders rows itself.* Leave"),
        ({"train_sampling_strategy": "batch_rebalance"}, "'batch_rebalance' orders rows itself.* Leave"),
        ({"auto_find_batch_size": True}, "auto_find_batch_size=True .* Set tokens_per_batch"),
        ({"remove_unused_columns": True}, "remove_unused_columns=True drops .* Leave it out"),
        ({"use_cache": True}, "use_cache=True hides the borders .* set batching=tokens"),
        ({"accelerator_config": {"split_batches": True}}, "splits or dispatches .* Leave split_batches"),
        ({"accelerator_config": {"dispatch_batches": True}}, "splits or dispatches .* Leave split_batches"),
    ],
)
def test_what_has_no_meaning_together_is_refused(config, settings, message):
    with pytest.raises(UserError, match=message):
        config(**{"batching": "packed"} | settings)


def test_a_preset_with_a_rate_of_its_own_keeps_its_other_values(config, caplog):
    with caplog.at_level(logging.WARNING):
        made = config(preset="v1", batching="tokens", learning_rate=2e-3)
    assert (made.learning_rate, made.num_train_epochs, made.adam_beta2) == (2e-3, 5.0, 0.95)
    assert made.gradient_accumulation_steps == 1  # 32 rows are not counted
    assert "loss_reduction=published takes the mean per device batch" in caplog.text


def test_a_setting_without_effect_is_named(config, caplog):
    with caplog.at_level(logging.WARNING):
        config(batching="tokens", dataloader_drop_last=True)
    assert "dataloader_drop_last=true has no effect with batching=tokens" in caplog.text


def test_rows_are_as_before(config):
    assert config().batching == "rows"
    assert config(preset="v1").gradient_accumulation_steps == 8
