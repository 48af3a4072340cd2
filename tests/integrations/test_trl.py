"""TRL's SFTTrainer and DPOTrainer with ``peft_config=ZeroInitConfig(...)``."""

import copy
import json

import pytest
import torch
from datasets import Dataset
from peft import PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from llama_adapter import ZeroInitConfig

trl = pytest.importorskip("trl", reason="TRL is not installed: pip install trl")

QUESTIONS = [
    ("Name the colour of the sky.", "The sky is blue.", "It is made of cheese."),
    ("Add two and three.", "The sum is five.", "The sum is a large animal."),
    ("Give the opposite of hot.", "The opposite of hot is cold.", "Hot is hot."),
    ("Which animal barks?", "A dog barks.", "No animal has ever made a sound."),
] * 3

COMMON = {
    "max_steps": 8,
    "per_device_train_batch_size": 4,
    "learning_rate": 5e-2,
    "lr_scheduler_type": "constant",
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": [],
    "disable_tqdm": True,
    "use_cpu": True,
    "bf16": False,
    "dataloader_pin_memory": False,
    "max_length": 96,
}


def message(role, content):
    return {"role": role, "content": content}


@pytest.fixture
def chats():
    return Dataset.from_list(
        [{"messages": [message("user", q), message("assistant", good)]} for q, good, _ in QUESTIONS]
    )


@pytest.fixture
def preferences():
    return Dataset.from_list(
        [
            {
                "prompt": [message("user", q)],
                "chosen": [message("assistant", good)],
                "rejected": [message("assistant", bad)],
            }
            for q, good, bad in QUESTIONS
        ]
    )


def history(trainer, key):
    return [entry[key] for entry in trainer.state.log_history if key in entry]


def assert_only_the_adapter_moved(trainer, untouched):
    """Everything that trains is the adapter's, and the base underneath is bit-equal to the untouched one."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    assert isinstance(model, PeftModel)
    assert all("zero_init_" in name for name, p in model.named_parameters() if p.requires_grad)
    base = model.unload().state_dict()
    expected = untouched.state_dict()
    assert base.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in base.items())


@pytest.mark.parametrize("preset", ["v1", "v2", "v21"])
def test_sft(tiny_llama, tokenizer, chats, tmp_path, preset, ids, logits):
    sizes = {"num_hidden_layers": 3}
    trainer = trl.SFTTrainer(
        model=tiny_llama(**sizes),
        args=trl.SFTConfig(output_dir=str(tmp_path), **COMMON),
        train_dataset=chats,
        eval_dataset=chats,
        processing_class=tokenizer,
        peft_config=ZeroInitConfig(task_type="CAUSAL_LM", preset=preset),
    )
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < before - 0.01
    trainer.save_model(str(tmp_path / "adapter"))
    again = PeftModel.from_pretrained(tiny_llama(**sizes), tmp_path / "adapter")
    assert torch.equal(logits(again, ids), logits(trainer.model.eval(), ids))
    assert_only_the_adapter_moved(trainer, tiny_llama(**sizes))


@pytest.mark.parametrize(
    "options",
    [
        {"packing": True, "packing_strategy": "wrapped", "max_length": 48},
        {"activation_checkpointing": False},
        {"completion_only_loss": False, "gradient_accumulation_steps": 2},
    ],
    ids=["packing", "no activation checkpointing", "accumulation"],
)
def test_sft_options(tiny_llama, tokenizer, chats, tmp_path, options):
    trainer = trl.SFTTrainer(
        model=tiny_llama(),
        args=trl.SFTConfig(output_dir=str(tmp_path), **COMMON | options),
        train_dataset=chats,
        eval_dataset=chats,
        processing_class=tokenizer,
        peft_config=ZeroInitConfig(task_type="CAUSAL_LM"),
    )
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < before - 0.01
    assert_only_the_adapter_moved(trainer, tiny_llama())


def test_dpo(tiny_llama, tokenizer, preferences, tmp_path):
    trainer = trl.DPOTrainer(
        model=tiny_llama(),
        args=trl.DPOConfig(output_dir=str(tmp_path), **COMMON),
        train_dataset=preferences,
        processing_class=tokenizer,
        peft_config=ZeroInitConfig(task_type="CAUSAL_LM"),
    )
    trainer.train()
    losses = history(trainer, "loss")
    assert losses[0] == pytest.approx(0.6931, abs=1e-4), "at the start model and reference agree: log 2"
    assert losses[-1] < losses[0] - 0.01
    assert history(trainer, "rewards/margins")[-1] > 0
    assert_only_the_adapter_moved(trainer, tiny_llama())


@pytest.mark.parametrize("precompute", [False, True], ids=["reference on the fly", "reference beforehand"])
def test_dpo_on_real_preferences(tiny_llama, tokenizer, shared_data, tmp_path, precompute, ids, logits):
    records = json.loads((shared_data / "instruct" / "dpo_en_demo.json").read_text())[:24]
    role = {"human": "user", "gpt": "assistant", "system": "system"}
    rows = [
        {
            "prompt": [message(role[turn["from"]], turn["value"][:60]) for turn in record["conversations"]],
            "chosen": [message("assistant", record["chosen"]["value"][:60])],
            "rejected": [message("assistant", record["rejected"]["value"][:60])],
        }
        for record in records
    ]
    base = logits(tiny_llama(), ids)
    trainer = trl.DPOTrainer(
        model=tiny_llama(),
        args=trl.DPOConfig(
            output_dir=str(tmp_path), precompute_ref_log_probs=precompute, **COMMON | {"max_length": 160}
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=ZeroInitConfig(task_type="CAUSAL_LM", preset="v2"),
    )
    assert trainer.ref_model is None, "the reference is the model with its adapter off"
    trainer.train()
    assert history(trainer, "loss")[0] == pytest.approx(0.6931, abs=1e-4)
    model = trainer.model.eval()
    assert not torch.equal(logits(model, ids), base)
    with model.disable_adapter():
        assert torch.equal(logits(model, ids), base)
    assert_only_the_adapter_moved(trainer, tiny_llama())


def test_dpo_goes_on_from_a_trained_adapter(tiny_llama, tokenizer, preferences, tmp_path, stir, ids, logits):
    """TRL then keeps a frozen copy of the adapter as the reference, under a second name."""
    model = stir(get_peft_model(tiny_llama(), ZeroInitConfig(task_type="CAUSAL_LM", preset="v2")))
    start = logits(model.eval(), ids)
    trainer = trl.DPOTrainer(
        model=model,
        args=trl.DPOConfig(output_dir=str(tmp_path), **COMMON),
        train_dataset=preferences,
        processing_class=tokenizer,
    )
    trainer.train()
    assert history(trainer, "loss")[0] == pytest.approx(0.6931, abs=1e-4)
    assert history(trainer, "loss")[-1] < 0.69
    trained = trainer.model.eval()
    assert not torch.equal(logits(trained, ids), start)
    trained.set_adapter("ref")
    assert torch.equal(logits(trained, ids), start)


def test_sft_goes_on_from_a_trained_adapter(tiny_llama, llama_dir, tokenizer, chats, tmp_path, stir):
    saved = tmp_path / "saved"
    stir(get_peft_model(tiny_llama(), ZeroInitConfig(task_type="CAUSAL_LM"))).save_pretrained(saved)
    trainer = trl.SFTTrainer(
        model=PeftModel.from_pretrained(tiny_llama(), saved, is_trainable=True),
        args=trl.SFTConfig(output_dir=str(tmp_path), **COMMON),
        train_dataset=chats,
        eval_dataset=chats,
        processing_class=tokenizer,
    )
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < before - 0.01
    assert_only_the_adapter_moved(trainer, tiny_llama())


def test_sft_from_a_folder_resumes(llama_dir, tokenizer, chats, tmp_path):
    """The model given by its path, stopped and continued: equal to the run that never stopped."""

    def make(folder, steps):
        return trl.SFTTrainer(
            model=str(llama_dir),
            args=trl.SFTConfig(
                output_dir=str(tmp_path / folder),
                **COMMON | {"max_steps": steps, "save_strategy": "steps", "save_steps": 3},
            ),
            train_dataset=chats,
            peft_config=ZeroInitConfig(task_type="CAUSAL_LM"),
        )

    straight = make("straight", 6)
    straight.train()
    make("stopped", 3).train()
    resumed = make("stopped", 6)
    resumed.train(resume_from_checkpoint=True)
    assert history(resumed, "loss") == history(straight, "loss")


# PEFT tells that it saves the resized embeddings, which is right here.
@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers` to `True`:UserWarning")
def test_sft_with_a_chat_template_that_adds_tokens(llama_dir, tokenizer, chats, tmp_path, ids, logits):
    """TRL then asks the adapter to train the new tokens' embeddings and the head."""
    source = copy.deepcopy(tokenizer)
    source.add_tokens(["<|turn|>", "<|over|>"], special_tokens=True)
    source.chat_template = tokenizer.chat_template.replace("</s>", "<|over|>")
    source.save_pretrained(tmp_path / "template")
    trainer = trl.SFTTrainer(
        model=str(llama_dir),
        args=trl.SFTConfig(output_dir=str(tmp_path), chat_template_path=str(tmp_path / "template"), **COMMON),
        train_dataset=chats,
        peft_config=ZeroInitConfig(task_type="CAUSAL_LM"),
    )
    trainer.train()
    trained = [name for name, p in trainer.model.named_parameters() if p.requires_grad]
    assert {"trainable_tokens_delta", "zero_init_prompt", "modules_to_save"} <= {
        word for name in trained for word in name.split(".")
    }
    trainer.save_model(str(tmp_path / "adapter"))
    base = AutoModelForCausalLM.from_pretrained(llama_dir)
    base.resize_token_embeddings(trainer.model.get_input_embeddings().weight.shape[0])
    again = PeftModel.from_pretrained(base, tmp_path / "adapter")
    assert torch.equal(logits(again, ids), logits(trainer.model.eval(), ids))


def test_padding_free_batches_equal_padded_ones(tiny_llama, tokenizer, chats, tmp_path):
    """Rows laid end to end share the prompts, which every query sees whichever row it belongs to."""
    losses = {}
    for padding_free in (False, True):
        torch.manual_seed(7)
        trainer = trl.SFTTrainer(
            model=tiny_llama(),
            args=trl.SFTConfig(
                output_dir=str(tmp_path), padding_free=padding_free, **COMMON | {"max_length": None}
            ),
            train_dataset=chats,
            processing_class=tokenizer,
            peft_config=ZeroInitConfig(task_type="CAUSAL_LM"),
        )
        trainer.train()
        losses[padding_free] = history(trainer, "loss")
    assert losses[True] == pytest.approx(losses[False], rel=1e-4)


def test_packing_without_flash_attention(tiny_llama, tokenizer, chats, tmp_path):
    trainer = trl.SFTTrainer(
        model=tiny_llama(),
        args=trl.SFTConfig(output_dir=str(tmp_path), packing=True, **COMMON),
        train_dataset=chats,
        eval_dataset=chats,
        processing_class=tokenizer,
        peft_config=ZeroInitConfig(task_type="CAUSAL_LM"),
    )
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < before - 0.01
