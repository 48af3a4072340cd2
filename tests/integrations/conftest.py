"""Tiny random models, a tokenizer made on the spot, and the few operations that all these tests share.

Everything runs on the CPU and offline. A fixture named like a verb or a model returns a function.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import peft
import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.integrations.peft import MIN_PEFT_VERSION, check_peft_version

HERE = Path(__file__).parent

FILTERS = (
    # TRL 1.16 uses transformers' old names of activation checkpointing, by default and around references.
    "ignore:`gradient_checkpointing(_enable|_disable|_kwargs)?` is deprecated:FutureWarning",
)

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

SENTENCES = [
    "The capital of France is Paris.",
    "Water boils at one hundred degrees.",
    "Name the colour of the sky. The sky is blue.",
    "Add two and three. The sum is five.",
    "Give the opposite of hot. The opposite of hot is cold.",
    "Which animal barks? A dog barks.",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the named warnings of other libraries pass in this folder, and no others."""
    for item in items:
        if HERE in item.path.parents:
            for line in FILTERS:
                item.add_marker(pytest.mark.filterwarnings(line), append=False)


@pytest.fixture(autouse=True)
def steady_numbers() -> Iterator[None]:
    """One thread and a fixed seed: sums then always run in the same order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def transformers_takes_peft() -> None:
    """Skips where transformers' own adapter methods ask for a newer PEFT than is installed."""
    try:
        check_peft_version(MIN_PEFT_VERSION)
    except ValueError as error:
        pytest.skip(f"transformers {transformers.__version__} with PEFT {peft.__version__}: {error}")


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE of 384 pieces with a chat template."""
    bpe = Tokenizer(models.BPE(unk_token="<unk>"))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    special = ["<unk>", "<s>", "</s>", "<pad>", "<|user|>", "<|assistant|>", "<|system|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=384,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(SENTENCES * 4, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        padding_side="left",
        chat_template=CHAT_TEMPLATE,
    )


@pytest.fixture(scope="session")
def tiny_llama(tokenizer) -> Callable[..., LlamaForCausalLM]:
    """Makes a random LLaMA with two layers and grouped key/value heads; equal seeds give equal weights."""

    def make(seed: int = 0, dtype: torch.dtype = torch.float32, **sizes: int) -> LlamaForCausalLM:
        torch.manual_seed(seed)
        options = {
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 256,
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "initializer_range": 0.2,
        }
        return LlamaForCausalLM(LlamaConfig(**(options | sizes))).to(dtype).eval()

    return make


@pytest.fixture(scope="session")
def llama_dir(tmp_path_factory, tiny_llama, tokenizer) -> Path:
    """A folder with the seed-0 tiny LLaMA and its tokenizer, as users have a base model on disk."""
    folder = tmp_path_factory.mktemp("base")
    tiny_llama().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def ids(tokenizer) -> torch.Tensor:
    """Two rows of eight token ids without special tokens."""
    return torch.randint(7, len(tokenizer), (2, 8), generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="session")
def stir() -> Callable[..., nn.Module]:
    """Moves every adapter parameter off its start, as training would, so that the adapter has an effect."""

    def move(model: nn.Module, seed: int = 1, adapter: str = "", scale: float = 0.5) -> nn.Module:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "zero_init_" in name and adapter in name:
                    noise = torch.randn(parameter.shape, generator=generator) * scale
                    parameter.add_(noise.to(parameter))
        return model

    return move


@pytest.fixture(scope="session")
def logits() -> Callable[[nn.Module, torch.Tensor], torch.Tensor]:
    """Runs a model without gradients and returns its logits."""

    def run(model: nn.Module, ids: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return model(input_ids=ids).logits

    return run


@pytest.fixture(scope="session")
def run_python() -> Callable[..., str]:
    """Runs a script in a fresh offline interpreter and returns what it printed."""

    def run(*command: str | Path, expect: int = 0) -> str:
        environment = os.environ | {
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")]),
        }
        done = subprocess.run(
            [sys.executable, *map(str, command)], env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == expect, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run
