"""LLaMA 3's table becomes a tokenizer that gives tiktoken's own tokens."""

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers.convert_slow_tokenizer import bytes_to_unicode

from llama_adapter.checkpoints.llama_tokenizer import write_tokenizer
from llama_adapter.checkpoints.tiktoken_table import is_table, llama_3_tokenizer

PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Meta's code cuts a text before it looks up byte sequences."""


@pytest.fixture(scope="module")
def table(tmp_path_factory, repository):
    """A table learned from the README: all bytes, then merges by rank."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=700, initial_alphabet=alphabet, show_progress=False)
    trained.train_from_iterator((repository / "README.md").read_text().splitlines(), trainer)
    as_byte = {letter: byte for byte, letter in bytes_to_unicode().items()}
    learned = sorted(trained.get_vocab().items(), key=lambda item: item[1])
    words = [bytes(as_byte[letter] for letter in word) for word, _ in learned]
    words.sort(key=lambda word: len(word) > 1)
    path = tmp_path_factory.mktemp("table") / "tokenizer.model"
    path.write_text("".join(f"{base64.b64encode(word).decode()} {rank}\n" for rank, word in enumerate(words)))
    return path, {word: rank for rank, word in enumerate(words)}


@pytest.fixture(scope="module")
def both(table):
    tiktoken = pytest.importorskip("tiktoken")
    path, ranks = table
    original = tiktoken.Encoding("table", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={})
    return original, llama_3_tokenizer(path, long_context=False)


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_tokens_are_tiktoken_s_own(both, text):
    original, ours = both
    tokens = ours(text, add_special_tokens=False)["input_ids"]
    assert tokens == original.encode(text, disallowed_special=())
    assert ours.decode(tokens, clean_up_tokenization_spaces=False) == text


@pytest.mark.parametrize(
    ("long_context", "names"),
    [
        (
            False,
            {0: "<|begin_of_text|>", 5: "<|reserved_special_token_3|>", 8: "<|reserved_special_token_4|>"},
        ),
        (True, {4: "<|finetune_right_pad_id|>", 8: "<|eom_id|>", 11: "<|reserved_special_token_3|>"}),
    ],
)
def test_special_tokens_follow_the_table(table, tmp_path, long_context, names):
    path, ranks = table
    note = write_tokenizer(path.parent, tmp_path, long_context)
    assert f"{len(ranks) + 256} tokens of a tiktoken table" in note
    tokenizer = llama_3_tokenizer(path, long_context)
    names |= {1: "<|end_of_text|>", 6: "<|start_header_id|>", 9: "<|eot_id|>"}
    found = {place: tokenizer.convert_ids_to_tokens(len(ranks) + place) for place in names}
    assert found == names
    last = "<|reserved_special_token_247|>" if long_context else "<|reserved_special_token_250|>"
    assert tokenizer.convert_tokens_to_ids(last) == len(ranks) + 255


def test_texts_begin_with_the_start_token(table):
    path, ranks = table
    tokenizer = llama_3_tokenizer(path, long_context=False)
    assert tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id == len(ranks)


def test_pieces_are_no_table(tmp_path):
    for content in (b"\n\x0e\n\x05<unk>", b"wor 5\n", b"IQ== x\n", b""):
        (tmp_path / "file").write_bytes(content)
        assert not is_table(tmp_path / "file")
