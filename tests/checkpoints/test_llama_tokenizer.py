"""tokenizer.model becomes a tokenizer that transformers reads and that gives the same tokens."""

import sentencepiece
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from llama_adapter.checkpoints.llama_tokenizer import write_tokenizer


def test_without_a_tokenizer_it_says_so(tmp_path):
    assert "No tokenizer.model" in write_tokenizer(tmp_path, tmp_path)


def test_another_format_is_named(tmp_path):
    (tmp_path / "tokenizer.model").write_text("IQ== 0\nIg== 1\n")
    assert "no SentencePiece model" in write_tokenizer(tmp_path, tmp_path)


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
