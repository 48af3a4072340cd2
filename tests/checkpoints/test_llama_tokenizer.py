"""tokenizer.model becomes a tokenizer that transformers reads and that gives the same tokens."""

import json

import pytest
import sentencepiece
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from llama_adapter.checkpoints.llama_tokenizer import write_tokenizer
from llama_adapter.errors import UserError


def test_without_a_tokenizer_it_says_so(tmp_path):
    assert "No tokenizer.model" in write_tokenizer(tmp_path, tmp_path)


def test_a_file_of_neither_format_is_refused(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(bytes(range(200)))
    with pytest.raises(UserError, match="no SentencePiece model and no tiktoken table"):
        write_tokenizer(tmp_path, tmp_path)


@pytest.fixture(scope="module")
def without_prefix(tmp_path_factory, repository):
    """A folder with pieces that put no mark before a text, as InternLM2's, and two pieces renamed."""
    folder = tmp_path_factory.mktemp("pieces")
    with (folder / "tokenizer.model").open("wb") as file:
        sentencepiece.SentencePieceTrainer.Train(
            sentence_iterator=iter((repository / "README.md").read_text().splitlines()),
            model_writer=file,
            vocab_size=600,
            model_type="bpe",
            add_dummy_prefix=False,
            byte_fallback=True,
            remove_extra_whitespaces=False,
            normalization_rule_name="identity",
            user_defined_symbols=["[UNUSED_TOKEN_1]", "[UNUSED_TOKEN_2]"],
        )
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    names = {"[UNUSED_TOKEN_1]": "<|im_start|>", "[UNUSED_TOKEN_2]": "<|im_end|>", "<s>": "<s>"}
    decoder = {str(pieces.PieceToId(old)): {"content": new} for old, new in names.items()}
    (folder / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": decoder}))
    return folder, pieces


def test_renamed_pieces_keep_their_place(without_prefix, tmp_path):
    source, pieces = without_prefix
    write_tokenizer(source, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    tokens = tokenizer("<|im_start|>user<|im_end|>", add_special_tokens=False)["input_ids"]
    assert tokens[0] == pieces.PieceToId("[UNUSED_TOKEN_1]")
    assert tokens[-1] == pieces.PieceToId("[UNUSED_TOKEN_2]")
    assert len(tokenizer) == pieces.GetPieceSize()
    assert tokenizer.decode(tokens, skip_special_tokens=True) == "user"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_pieces_without_a_first_mark(without_prefix, tmp_path, text):
    source, pieces = without_prefix
    if not (tmp_path / "tokenizer.json").exists():
        write_tokenizer(source, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokens == pieces.Encode(text)
    assert tokenizer.decode(tokens, clean_up_tokenization_spaces=False) == pieces.Decode(tokens)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_tokens_are_sentencepiece_s_own(shared_data, tmp_path, text):
    source = shared_data / "models" / "stories260k-meta"
    if not (tmp_path / "tokenizer_config.json").exists():
        assert "512 SentencePiece tokens" in write_tokenizer(source, tmp_path)
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(source / "tokenizer.model")).Encode(text)
    ours = AutoTokenizer.from_pretrained(tmp_path)(text, add_special_tokens=False)["input_ids"]
    assert ours == theirs


def test_text_begins_with_the_start_token_and_comes_back(shared_data, tmp_path):
    write_tokenizer(shared_data / "models" / "stories260k-meta", tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    tokens = tokenizer("Once upon  a time")["input_ids"]
    assert tokens[0] == tokenizer.bos_token_id == 1
    assert tokenizer.decode(tokens, skip_special_tokens=True) == "Once upon  a time"
