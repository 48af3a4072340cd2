"""Phases and disjoint groups: what trains on which records, to the last bit."""

from dataclasses import replace

import pytest
import torch

from llama_adapter import ZeroInitConfig
from llama_adapter.errors import UserError
from llama_adapter.training import build_trainer, train
from llama_adapter.training.groups import GroupConfig
from tests.training.image_runs import image_config, write_records

ADAPTER = {
    "prompt_length": 3,
    "gate_init_std": 0.5,
    "deltas": ["bias", "output_scale", {"kind": "lora", "rank": 2}],
    "norms": True,
}
SEEING = GroupConfig(parts=["prompt", "gate", "conditioner"], records="images")
SPEAKING = GroupConfig(parts=["norm", "bias", "output_scale", "lora"], records="text")


@pytest.fixture
def config(tmp_path, chat_base_dir):
    write_records(tmp_path, every=2)

    def make(groups=(), start_from=None, adapter=None, **settings):
        made = image_config(
            tmp_path,
            chat_base_dir,
            adapter=ZeroInitConfig(**(adapter or ADAPTER)),
            weight_decay=0.1,
            **{"save_strategy": "no", **settings},
        )
        return replace(made, groups=list(groups), start_from=start_from)

    return make


def weights(trainer):
    return {name: p.detach().clone() for name, p in trainer.unwrapped.named_parameters()}


def moved(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_a_phase_trains_its_parts_alone(config):
    made = build_trainer(config([GroupConfig(parts=["prompt", "gate"])]))
    before = weights(made)
    made.train()
    names = moved(before, weights(made))
    assert names
    assert all("zero_init_prompt" in name or "zero_init_gate" in name for name in names)


@pytest.mark.parametrize("batching", ["rows", "tokens", "packed"])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_step_changes_only_the_group_of_its_records(config, batching, accumulation):
    budget = {} if batching == "rows" else {"tokens_per_batch": 500}
    made = build_trainer(
        config(
            [SEEING, SPEAKING],
            batching=batching,
            gradient_accumulation_steps=accumulation,
            num_train_epochs=3.0,
            max_steps=-1,
            **budget,
        )
    )
    seen, last = [], weights(made)
    finish = made._finish_step

    def watch():
        nonlocal last
        now = weights(made)
        seen.append((made.step_sees, moved(last, now)))
        last = now
        finish()

    made._finish_step = watch
    made.callback_handler.callbacks[-1]._step_end = watch
    made.train()
    sighted = set(made.groups.members[0][1])
    for sees, names in seen:
        own = {name.removeprefix("language_model.") for name in names}
        assert own
        assert own <= sighted if sees else not own & sighted
    assert {sees for sees, _ in seen} == {True, False}


def test_a_phase_goes_on_from_an_earlier_one_that_had_fewer_parts(config, tmp_path):
    adapter = {"prompt_length": 3, "gate_init_std": 0.5}
    train(config([GroupConfig(parts=["prompt", "gate", "conditioner"])], adapter=adapter))
    first = str(tmp_path / "run" / "adapter")
    made = build_trainer(config([SPEAKING], start_from=first, output_dir=str(tmp_path / "second")))
    other = build_trainer(config([SPEAKING], output_dir=str(tmp_path / "third")))
    loaded = moved(weights(other), weights(made))
    assert {"prompt", "gate", "conditioner"} == {
        part
        for part in ("prompt", "gate", "conditioner", "bias", "lora", "norm")
        for name in loaded
        if part in name
    } - {"bias", "norm"}
    evaluated = made.evaluate()["eval_loss"]
    earlier = build_trainer(
        config(adapter=adapter, start_from=first, output_dir=str(tmp_path / "fourth"))
    ).evaluate()["eval_loss"]
    assert evaluated == pytest.approx(earlier, rel=1e-6)  # what was added changes nothing yet


def test_a_start_that_has_more_than_this_run_is_refused(config, tmp_path):
    train(config(max_steps=1))
    first = str(tmp_path / "run" / "adapter")
    with pytest.raises(UserError, match="tensors of .* have no place in this run's adapter. Use settings"):
        build_trainer(config(adapter={"prompt_length": 3}, start_from=first))
    with pytest.raises(UserError, match="has prompt_length=3, this run 2. Set adapter.prompt_length"):
        build_trainer(config(adapter={**ADAPTER, "prompt_length": 2}, start_from=first))
    with pytest.raises(UserError, match="holds no adapter_config.json"):
        build_trainer(config(start_from=str(tmp_path / "pictures")))


def test_joint_training_resumes_to_the_last_bit(config, tmp_path):
    settings = {"save_strategy": "steps", "max_steps": 6, "gradient_accumulation_steps": 2}
    straight = build_trainer(config([SEEING, SPEAKING], **settings))
    straight.train()
    resumed = build_trainer(config([SEEING, SPEAKING], **settings))
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-4"))
    assert not moved(weights(straight), weights(resumed))


def test_parts_of_an_epoch_count_as_epochs(config):
    made = build_trainer(config(epoch_parts=2, num_train_epochs=4.0, max_steps=-1))
    made.train()
    assert made.state.epoch == 4
    assert made.state.global_step == 4 * (5 // 2)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            [["sight"]],
            r"names the part 'sight', which trains nothing here. Use some of \['bias', 'conditioner'",
        ),
        ([["prompt"], ["gate", "prompt"]], "is in two groups. Give every part to one"),
        ([["prompt[5:]"]], r"names the part 'prompt\[5:\]', which trains nothing"),
    ],
)
def test_wrong_groups_are_named(config, parts, message):
    with pytest.raises(UserError, match=message):
        build_trainer(config([GroupConfig(parts=names) for names in parts]))


def test_a_part_can_be_some_layers_of_it(config):
    made = build_trainer(config([GroupConfig(parts=["prompt[0:1]", "gate"])]))
    trained = [name for name, p in made.unwrapped.named_parameters() if p.requires_grad]
    assert sum("prompt.default" in name for name in trained) == 1
    assert sum("gate.default" in name for name in trained) == 2


def test_an_empty_group_is_refused():
    with pytest.raises(UserError, match=r"parts of a group is \[\]. Name at least one"):
        GroupConfig(parts=[])
