"""transformers' own Trainer on an adapted model: it trains, stops, goes on and keeps the best."""

import json

import pytest
import torch
from datasets import Dataset
from peft import PeftModel, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from llama_adapter import ZeroInitConfig


@pytest.fixture(scope="module")
def rows(tokenizer):
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(7, len(tokenizer), (16, 10), generator=generator)
    return Dataset.from_dict({"input_ids": ids.tolist(), "attention_mask": torch.ones_like(ids).tolist()})


@pytest.fixture
def make_trainer(tiny_llama, tokenizer, rows, tmp_path):
    def make(folder="run", callbacks=None, preset="v2", **options):
        set_seed(11)
        model = get_peft_model(tiny_llama(), ZeroInitConfig(task_type="CAUSAL_LM", preset=preset))
        args = TrainingArguments(
            output_dir=str(tmp_path / folder),
            **{
                "per_device_train_batch_size": 4,
                "max_steps": 6,
                "learning_rate": 2e-2,
                "logging_steps": 1,
                "save_steps": 3,
                "report_to": [],
                "disable_tqdm": True,
                "use_cpu": True,
                "seed": 11,
                "dataloader_pin_memory": False,
            }
            | options,
        )
        return Trainer(
            model=model,
            args=args,
            train_dataset=rows,
            eval_dataset=rows.select(range(8)),
            data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
            callbacks=callbacks,
        )

    return make


def losses(trainer):
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def adapter_state(model):
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


class StopAt(TrainerCallback):
    """Stops a run in the middle, as an interruption after a checkpoint would."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step >= self.step


def test_trains_the_adapter_alone_and_saves_it(make_trainer, tiny_llama, tmp_path, ids, logits):
    trainer = make_trainer(max_steps=12)
    trainer.train()
    assert losses(trainer)[-1] < losses(trainer)[0]
    model = trainer.model.eval()
    checkpoint = tmp_path / "run" / "checkpoint-12"
    assert (checkpoint / "adapter_model.safetensors").is_file()
    assert not (checkpoint / "model.safetensors").exists()
    again = PeftModel.from_pretrained(tiny_llama(), checkpoint)
    assert torch.equal(logits(again, ids), logits(model, ids))
    trainer.save_model(str(tmp_path / "final"))
    again = PeftModel.from_pretrained(tiny_llama(), tmp_path / "final")
    assert torch.equal(logits(again, ids), logits(model, ids))

    untouched = tiny_llama().state_dict()
    base = model.unload().state_dict()
    assert base.keys() == untouched.keys()
    assert all(torch.equal(value, untouched[name]) for name, value in base.items())


def test_resumed_equals_straight(make_trainer, tmp_path):
    straight = make_trainer("straight")
    straight.train()
    make_trainer("stopped", callbacks=[StopAt(3)]).train()
    resumed = make_trainer("stopped")
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 6
    expected = adapter_state(straight.model)
    assert expected
    for name, value in adapter_state(resumed.model).items():
        assert torch.equal(value, expected[name]), name
    assert losses(resumed) == losses(straight)


def test_best_checkpoint_is_loaded_at_the_end(make_trainer, tmp_path, tiny_llama, ids, logits):
    trainer = make_trainer(
        eval_strategy="steps",
        eval_steps=2,
        save_steps=2,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=True,  # the highest loss: the first checkpoint, which differs from the last state
    )
    trainer.train()
    best = trainer.state.best_model_checkpoint
    assert best.endswith("checkpoint-2")
    expected = PeftModel.from_pretrained(tiny_llama(), best)
    assert torch.equal(logits(trainer.model.eval(), ids), logits(expected, ids))


def test_activation_checkpointing_gives_the_same_training(make_trainer):
    plain = make_trainer("plain", save_strategy="no")
    plain.train()
    checkpointed = make_trainer("checkpointed", save_strategy="no", activation_checkpointing=True)
    checkpointed.train()
    assert losses(checkpointed) == pytest.approx(losses(plain), rel=1e-5)
    for name, value in adapter_state(checkpointed.model).items():
        assert torch.allclose(value, adapter_state(plain.model)[name], atol=1e-5), name


@pytest.mark.filterwarnings("ignore:Activation checkpointing of .* has use_reentrant=True:UserWarning")
def test_reentrant_checkpoints_give_the_same_training(make_trainer):
    plain = make_trainer("plain", save_strategy="no")
    plain.train()
    trainer = make_trainer(
        "reentrant",
        save_strategy="no",
        activation_checkpointing=True,
        activation_checkpointing_kwargs={"use_reentrant": True},
    )
    trainer.train()
    assert losses(trainer) == pytest.approx(losses(plain), rel=1e-5)


def test_bf16_training_keeps_a_float32_adapter(make_trainer):
    trainer = make_trainer(bf16=True, save_strategy="no", max_steps=8)
    trainer.train()
    assert losses(trainer)[-1] < losses(trainer)[0]
    assert {p.dtype for p in trainer.model.parameters() if p.requires_grad} == {torch.float32}


def test_gradient_accumulation_equals_the_large_batch(make_trainer):
    large = make_trainer("large", save_strategy="no", max_steps=3, per_device_train_batch_size=8)
    large.train()
    small = make_trainer(
        "small",
        save_strategy="no",
        max_steps=3,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=4,
    )
    small.train()
    for name, value in adapter_state(small.model).items():
        assert torch.allclose(value, adapter_state(large.model)[name], atol=1e-5), name


@pytest.mark.usefixtures("transformers_takes_peft")
def test_adapter_added_by_transformers_trains_too(llama_dir, rows, tokenizer, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(llama_dir)
    model.add_adapter(ZeroInitConfig(task_type="CAUSAL_LM"))
    args = TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=4,
        learning_rate=5e-2,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        dataloader_pin_memory=False,
        save_steps=4,
    )
    collator = DataCollatorForLanguageModeling(tokenizer, mlm=False)
    trainer = Trainer(model=model, args=args, train_dataset=rows, data_collator=collator)
    before = adapter_state(model)
    trainer.train()
    assert any(not torch.equal(value, before[name]) for name, value in adapter_state(model).items())
    saved = json.loads((tmp_path / "checkpoint-4" / "adapter_config.json").read_text())
    assert saved["peft_type"] == "ZERO_INIT"
