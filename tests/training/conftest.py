"""A tiny random Llama with LoRA, records with unequal answers, and a trainer around them."""

import random

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from llama_adapter.training import Trainer, TrainingConfig

VOCABULARY = 48
FLOATS = {"eval_steps", "logging_steps", "num_train_epochs", "save_steps", "warmup_steps", "warmup_epochs"}


def collate(rows):
    """Right-padded batch, as the data package's collator makes it."""
    width = max(len(row["input_ids"]) for row in rows)

    def pad(values, value):
        return values + [value] * (width - len(values))

    return {
        "input_ids": torch.tensor([pad(list(row["input_ids"]), 0) for row in rows]),
        "attention_mask": torch.tensor([pad([1] * len(row["input_ids"]), 0) for row in rows]),
        "labels": torch.tensor([pad(list(row["labels"]), -100) for row in rows]),
        "record_id": [row["record_id"] for row in rows],
    }


def make_records(count, seed=0, name="train.jsonl"):
    """Records of 4 to 12 tokens whose answers, the labelled tail, have 1 to 8."""
    source = random.Random(seed)
    records = []
    for line in range(1, count + 1):
        length = source.randint(4, 12)
        ids = [source.randrange(1, VOCABULARY) for _ in range(length)]
        answer = source.randint(1, min(8, length - 1))
        labels = [-100] * (length - answer) + ids[length - answer :]
        records.append({"input_ids": ids, "labels": labels, "record_id": f"{name}:{line}"})
    return records


def make_base():
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config)


def adapt(base, dropout=0.0, targets=("q_proj", "v_proj")):
    """Attaches LoRA whose second factor is not zero, so that every tensor gets a gradient."""
    torch.manual_seed(11)
    return get_peft_model(
        base, LoraConfig(r=4, target_modules=list(targets), lora_dropout=dropout, init_lora_weights=False)
    )


def resumable_settings(output, **settings):
    """A run with everything that must survive: dropout, accumulation with a rest, a schedule, epochs,
    checkpoints."""
    return {
        "output_dir": str(output),
        "max_steps": 12,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "learning_rate": 1e-2,
        "weight_decay": 0.1,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 2.0,
        "logging_steps": 1.0,
        "save_steps": 3.0,
        "disable_tqdm": True,
        "use_cpu": True,
        **settings,
    }


@pytest.fixture(scope="session")
def base_dir(tmp_path_factory):
    """Folder of the tiny base model."""
    folder = tmp_path_factory.mktemp("base")
    make_base().save_pretrained(folder)
    return folder


@pytest.fixture
def records():
    return make_records


@pytest.fixture
def collator():
    return collate


@pytest.fixture
def adapted(base_dir):
    """Loads the tiny base and adapts it."""

    def load(dropout=0.0, targets=("q_proj", "v_proj"), dtype="float32"):
        return adapt(LlamaForCausalLM.from_pretrained(base_dir, dtype=dtype), dropout, targets)

    return load


@pytest.fixture
def trainer(tmp_path, adapted):
    """Makes a trainer; keyword arguments are training settings, except the four named ones."""

    def make(*, model=None, train=None, evaluation=None, folder="run", **settings):
        defaults = {
            "output_dir": str(tmp_path / folder),
            "max_steps": 4,
            "per_device_train_batch_size": 2,
            "learning_rate": 1e-2,
            "logging_steps": 1,
            "save_strategy": "no",
            "disable_tqdm": True,
            "use_cpu": True,
        }
        merged = {**defaults, **settings}
        # The host declares these as float, and the test run checks annotations to the letter.
        for name in FLOATS & merged.keys():
            merged[name] = float(merged[name])
        return Trainer(
            model=adapted() if model is None else model,
            args=TrainingConfig(**merged),
            train_dataset=make_records(12) if train is None else train,
            eval_dataset=evaluation,
            data_collator=collate,
        )

    return make


@pytest.fixture
def resumable(tmp_path, adapted):
    """Makes the trainer of a run that is stopped and resumed, or not."""

    def make(folder, **settings):
        return Trainer(
            model=adapted(dropout=0.3),
            args=TrainingConfig(**resumable_settings(tmp_path / folder, **settings)),
            train_dataset=make_records(15),
            eval_dataset=make_records(5, seed=9, name="eval.jsonl") if "eval_strategy" in settings else None,
            data_collator=collate,
        )

    return make


DDP_RUNS = {
    "token": {"gradient_accumulation_steps": 2},
    "published": {"loss_reduction": "published", "gradient_accumulation_steps": 1},
    # Four steps an epoch, the last of one record: a rank is left without one.
    "rows": {"dataloader_drop_last": False, "gradient_accumulation_steps": 1, "records": 13},
    # Budgets that give an even number of batches, so that one process has the same ones.
    "tokens": {"batching": "tokens", "tokens_per_batch": 20, "gradient_accumulation_steps": 1},
    "packed": {"batching": "packed", "tokens_per_batch": 20, "gradient_accumulation_steps": 1},
    # 15 batches of one record: one rank is left without its eighth. A step is an epoch.
    "left_over": {
        "batching": "tokens",
        "tokens_per_batch": 2,
        "gradient_accumulation_steps": 8,
        "records": 15,
    },
}
"""The runs of the two-process test; each rank takes half of the batch of the one-process run."""


def ddp_settings(output):
    return {
        "output_dir": str(output),
        "max_steps": 6,
        "gradient_accumulation_steps": 2,
        "learning_rate": 1e-2,
        "logging_steps": 1.0,
        "save_steps": 2.0,
        "eval_strategy": "steps",
        "eval_steps": 3.0,
        "per_device_eval_batch_size": 2,
        "disable_tqdm": True,
        "use_cpu": True,
        "dataloader_drop_last": True,
    }


@pytest.fixture
def single(tmp_path, adapted):
    """Makes the one-process twin of a two-process run."""

    def make(records=16, **settings):
        return Trainer(
            model=adapted(),
            args=TrainingConfig(**{**ddp_settings(tmp_path / "single"), **settings}),
            train_dataset=make_records(records),
            eval_dataset=make_records(7, seed=5, name="eval.jsonl"),
            data_collator=collate,
        )

    return make


@pytest.fixture(scope="session")
def chat_base_dir(tmp_path_factory):
    """Folder of a tiny base whose tokenizer reads any text byte by byte, without a pad token."""
    folder = tmp_path_factory.mktemp("chat-base")
    alphabet = sorted(ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(["<s>", "</s>", "<unk>", *alphabet])}
    tokenizer = Tokenizer(BPE(vocabulary, [], unk_token="<unk>"))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", model_max_length=512
    )
    fast.chat_template = (
        "{% for message in messages %}<s>{{ message['role'] }}\n{{ message['content'] }}</s>\n{% endfor %}"
        "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
    )
    fast.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
        bos_token_id=0,
        eos_token_id=1,
    )
    torch.manual_seed(3)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder
