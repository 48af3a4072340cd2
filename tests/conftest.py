"""What every test gets: its own folder, no network, fixed seeds, an environment that comes out unchanged."""

import os

# Before any Hugging Face import: they read these once.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import random
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent

# Libraries write these themselves when they are imported or when training arguments are created.
_LIBRARY_VARIABLES = (
    "ACCELERATE_",
    "FSDP_",
    "KINETO_",
    "KMP_",
    "MPL",
    "PYTEST_CURRENT_TEST",
    "TF2_",
    "TF_CPP_",
    "TORCHINDUCTOR_",
    "TORCH_NCCL_",
    "TRITON_",
    "WANDB_",
)


@pytest.fixture(autouse=True)
def isolated(tmp_path, monkeypatch):
    """Gives the test its own folder and fixed seeds; fails it when it leaves environment variables behind."""
    import numpy
    import torch

    monkeypatch.chdir(tmp_path)
    random.seed(0)
    numpy.random.seed(0)
    torch.manual_seed(0)
    before = dict(os.environ)
    yield
    after = {name: value for name, value in os.environ.items() if not name.startswith(_LIBRARY_VARIABLES)}
    leaked = sorted(name for name, value in after.items() if before.get(name) != value)
    os.environ.clear()
    os.environ.update(before)
    assert not leaked, (
        f"the test left environment variables behind: {leaked}; set them with monkeypatch.setenv"
    )


@pytest.fixture(scope="session")
def repository():
    """The folder of pyproject.toml."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data():
    """Real data beside the checkout (or at LLAMA_ADAPTER_SHARED); the test is skipped without it."""
    root = Path(os.environ.get("LLAMA_ADAPTER_SHARED", REPOSITORY.parent / "shared")) / "data"
    if not root.is_dir():
        pytest.skip(
            f"real test data not found at {root}; set LLAMA_ADAPTER_SHARED to the folder that holds data/"
        )
    return root


def byte_tokenizer(chat_template=None):
    """A tokenizer without a vocabulary file: one token per UTF-8 byte, plus <pad>, <s> and </s>."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    specials = ["<pad>", "<s>", "</s>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(specials + alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )
    wrapped.chat_template = chat_template
    return wrapped


CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}[{{ message['role'] }}]{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


def tiny_llama(**changes):
    """A random two-layer LLaMA whose vocabulary fits `byte_tokenizer`."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    settings = {
        "vocab_size": 259,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "initializer_range": 0.3,  # larger than usual, so that greedy answers differ between prompts
    }
    torch.manual_seed(1)
    return LlamaForCausalLM(LlamaConfig(**settings | changes)).eval()


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory):
    """A folder that from_pretrained reads: a tiny random LLaMA, a byte tokenizer with a chat template."""
    folder = tmp_path_factory.mktemp("tiny-llama")
    tiny_llama().save_pretrained(folder)
    byte_tokenizer(CHAT_TEMPLATE).save_pretrained(folder)
    return folder
