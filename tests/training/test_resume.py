"""Which checkpoint is chosen, and what is noticed before it is loaded."""

import logging

import pytest
from peft import LoraConfig

from llama_adapter.errors import UserError
from llama_adapter.training import checkpoint as files
from llama_adapter.training.resume import (
    changed_settings,
    changes_rates,
    check_same_adapter,
    check_same_sharding,
    choose_checkpoint,
    warn_about_changes,
)


@pytest.fixture
def run(tmp_path):
    """A run with complete checkpoints of an adapter at steps 1 and 2."""
    for step in (1, 2):
        written = files.staging_folder(tmp_path, step)
        written.mkdir()
        LoraConfig(r=4, target_modules=["v_proj", "q_proj"]).save_pretrained(written)
        files.publish(written, tmp_path / f"checkpoint-{step}", {"world_size": 1, "train_records": 10})
    return tmp_path


def test_the_last_complete_one_is_chosen_and_damaged_ones_are_set_aside(run, caplog):
    assert choose_checkpoint(run, True).path == str(run / "checkpoint-2")
    (run / "checkpoint-2" / "manifest.json").unlink()
    with caplog.at_level(logging.WARNING):
        choice = choose_checkpoint(run, True)
    assert choice.path == str(run / "checkpoint-1")
    assert choice.message == f"Resuming from {run / 'checkpoint-1'}."
    assert "checkpoint-2 has no manifest: it was never finished. Kept as damaged-checkpoint-2." in caplog.text


def test_none_at_all_starts_fresh(tmp_path):
    choice = choose_checkpoint(tmp_path, True)
    assert choice.path is None
    assert choice.message == f"No complete checkpoint in {tmp_path}: starting fresh."


def test_a_named_one_is_taken_as_it_is(run):
    assert choose_checkpoint(run, str(run / "checkpoint-1")).path == str(run / "checkpoint-1")
    with pytest.raises(UserError, match="checkpoint-7 has no manifest"):
        choose_checkpoint(run, str(run / "checkpoint-7"))


def test_the_same_adapter_passes_whatever_the_order_of_its_targets(run):
    check_same_adapter(run / "checkpoint-1", LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))


def test_another_adapter_is_refused_by_field(run):
    with pytest.raises(
        UserError, match=r"another adapter \(lora_alpha: 8 there, 16 here; r: 4 there, 2 here\)\. Use"
    ):
        check_same_adapter(
            run / "checkpoint-1", LoraConfig(r=2, lora_alpha=16, target_modules=["q_proj", "v_proj"])
        )


def test_other_data_is_noticed(run, caplog):
    with caplog.at_level(logging.WARNING):
        warn_about_changes(run / "checkpoint-1", {"world_size": 1, "train_records": 10})
        assert not caplog.text
        warn_about_changes(run / "checkpoint-1", {"world_size": 1, "train_records": 12, "new": 3})
    assert caplog.text.count("sees other batches") == 1
    assert "train_records was 10 when checkpoint-1 was written and is 12 now" in caplog.text


def test_the_same_rows_in_another_division_are_no_change(run, caplog):
    division = {"world_size": 4, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 1}
    order = {"batching": "rows", "epoch_parts": 1, "types": "mixed", "groups": []}
    written = files.staging_folder(run, 3)
    written.mkdir()
    files.publish(written, run / "checkpoint-3", {**division, **order})
    with caplog.at_level(logging.WARNING):
        warn_about_changes(
            run / "checkpoint-3", {**division, **order, "world_size": 2, "gradient_accumulation_steps": 2}
        )
        assert not caplog.text
        warn_about_changes(run / "checkpoint-3", {**division, **order, "world_size": 2})
    assert "world_size was 4 when checkpoint-3 was written and is 2 now" in caplog.text


def test_an_adapter_is_resumed_as_it_was_trained(run):
    check_same_sharding(run / "checkpoint-1", sharded=False)
    with pytest.raises(UserError, match="by a run with fsdp=False, and this one has fsdp=True. Resume"):
        check_same_sharding(run / "checkpoint-1", sharded=True)
    (run / "checkpoint-1" / "pytorch_model_fsdp_0").mkdir()
    check_same_sharding(run / "checkpoint-1", sharded=True)


FACTS = {
    "data": "one",
    "groups": [],
    "settings": {
        "training.learning_rate": 1e-2,
        "training.optim": "adamw_torch",
        "training.lr_scheduler_type": "linear",
        "training.output_dir": "a",
        "data.train.0.path": "a.jsonl",
        "tuning.trainable": None,
    },
}


@pytest.fixture
def written(tmp_path):
    """A checkpoint with facts."""
    staging = files.staging_folder(tmp_path, 1)
    staging.mkdir()
    files.publish(staging, tmp_path / "checkpoint-1", FACTS)
    return tmp_path / "checkpoint-1"


def changed(**settings):
    return {**FACTS, "settings": {**FACTS["settings"], **settings}}


def test_settings_that_changed_are_named_and_those_of_the_start_are_not(written):
    assert changed_settings(written, FACTS) == []
    found = changed_settings(written, changed(**{"training.learning_rate": 1e-4, "training.output_dir": "b"}))
    assert found == ["training.learning_rate: 0.01 -> 0.0001"]
    assert changes_rates(found)
    moved = changed_settings(written, changed(**{"data.train.0.path": "b.jsonl"}))
    assert moved == ["data.train.0.path: 'a.jsonl' -> 'b.jsonl'"]
    assert not changes_rates(moved)


@pytest.mark.parametrize(
    ("facts", "named"),
    [
        (
            {**changed(**{"data.train.0.path": "b.jsonl"}), "data": "two"},
            r"the records \(data.train.0.path: 'a.jsonl'",
        ),
        ({**FACTS, "data": "two"}, "the records"),
        ({**FACTS, "groups": [["all", ["gate"]]]}, "groups"),
        (
            changed(**{"training.optim": "sgd"}),
            r"the optimiser \(training.optim: 'adamw_torch' there, 'sgd' here",
        ),
        (changed(**{"tuning.trainable": "norm"}), "what trains .tuning.trainable: None there, 'norm' here"),
        (
            changed(**{"training.lr_scheduler_type": "greedy", "training.learning_rate": 1.0}),
            "a rate under lr_scheduler_type='greedy'",
        ),
    ],
)
def test_what_a_run_cannot_go_on_without_is_refused_by_name(written, facts, named):
    with pytest.raises(UserError, match=f"was written with another setting of {named}"):
        changed_settings(written, facts)
