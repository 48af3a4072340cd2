"""Tiny tokenizers of both great families, made here, and places for data."""

import json

import datasets
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

CHATML = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nBe brief.<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# one that keeps thoughts in a last answer only, as those of reasoning models do
DROPS_THOUGHTS = CHATML.replace(
    "{{ message['content'] }}",
    "{% if loop.last %}{{ message['content'] }}"
    "{% else %}{{ message['content'].split('</think>')[-1] }}{% endif %}",
)
THOUGHTFUL_TALK = [
    {"role": "user", "content": "one"},
    {"role": "assistant", "content": "<think>hm</think>first"},
    {"role": "user", "content": "two"},
    {"role": "assistant", "content": "second"},
]
# a template that writes the begin token itself, trims what it is given and puts a blank before the end token
BRACKETS = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "[INST] {{ message['content'] | trim }} [/INST]{% elif message['role'] == 'assistant' %}"
    " {{ message['content'] | trim }} {{ eos_token }}{% else %}{{ raise_exception('no system turns here') }}"
    "{% endif %}{% endfor %}"
)
# pieces that cross the border between a prompt and an answer: "::", ":)", " Paris", "\n\n", "st"
CORPUS = [
    "the quick brown fox :) jumps :: over (the) lazy dog\n\n### Response:: ok\n",
    "Paris is the capital of France. A: Paris, B: Paris; assistant\n\nassistant\n\n",
    "Below is an instruction that describes a task. Write a response.\n\n### Instruction:\n",
    "first last best rest test st st st 1 2 3 12 123 äöü 你好 😀",
] * 8


@pytest.fixture(scope="session")
def byte_level():
    """A byte-level BPE with ChatML; its post-processor trims offsets, as those of GPT-2 and Llama 3 do."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.post_processor = processors.ByteLevel(trim_offsets=True)
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|im_start|>", "<|im_end|>", "<pad>"],
    )
    core.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", pad_token="<pad>", chat_template=CHATML
    )


def _sentencepiece_like(scheme):
    core = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    core.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(
        vocab_size=600, show_progress=False, special_tokens=names, max_token_length=8, limit_alphabet=70
    )
    core.train_from_iterator(CORPUS, trainer)
    spec = json.loads(core.to_str())
    spec["added_tokens"] = spec["added_tokens"][:3]  # the bytes are ordinary pieces
    core = Tokenizer.from_str(json.dumps(spec))
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>", chat_template=BRACKETS
    )


@pytest.fixture(scope="session")
def llama_like():
    """SentencePiece-style BPE with byte fallback and a begin token; a blank is put before the first word."""
    return _sentencepiece_like("first")


@pytest.fixture(scope="session")
def llama_legacy():
    """The same, but a blank is put before every stretch of text, as the first LLaMA tokenizers do."""
    return _sentencepiece_like("always")


@pytest.fixture(scope="session")
def byte_tokenizer():
    """One token per byte, id = byte + 3, begin 1, end 2: what the published code was run with."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    order = sorted(alphabet, key=lambda char: _byte_of()[char])
    vocab = {"<pad>": 0, "<s>": 1, "</s>": 2} | {char: _byte_of()[char] + 3 for char in order}
    core = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(name, special=True) for name in ("<pad>", "<s>", "</s>")])
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )


def _byte_of():
    """The byte each character of the byte-level alphabet stands for."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {chr(256 + i): byte for i, byte in enumerate(hidden)}


@pytest.fixture(autouse=True)
def quiet(tmp_path, monkeypatch):
    """No progress bars, and no cache outside the test's own folder."""
    datasets.disable_progress_bars()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "hf-cache"))
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    yield
    datasets.enable_progress_bars()


@pytest.fixture
def write(tmp_path):
    """Writes a file and returns its path: text and bytes as they are, lists as JSON or JSON lines."""

    def write_file(name, content):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, list):
            rows = [json.dumps(row, ensure_ascii=False) for row in content]
            content = "\n".join(rows) + "\n" if name.endswith("l") else "[\n" + ",\n".join(rows) + "\n]"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write_file
