import pytest
from tokenizers import AddedToken
from transformers import LlamaConfig

from llama_adapter.cli import main
from llama_adapter.errors import UserError
from llama_adapter.models import BaseModelConfig, load_base_and_tokenizer
from llama_adapter.vocabulary import check_vocabulary, vocabulary_size
from tests.tiny import CHAT_TEMPLATE, byte_tokenizer, tiny_llama


def larger(*tokens):
    tokenizer = byte_tokenizer(CHAT_TEMPLATE)
    tokenizer.add_tokens([AddedToken(token) for token in tokens])
    return tokenizer


@pytest.fixture
def base(tmp_path):
    """A folder with a model of 259 embeddings, and a tokenizer of 261."""
    tiny_llama().save_pretrained(tmp_path / "base")
    larger("NEWA", "NEWB").save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def test_a_token_without_a_row_is_named_with_both_sizes_and_the_remedy():
    reason = r"has 261 tokens, .* 259 rows: 261 > 259, .* 'NEWA', 'NEWB'. .*resize_token_embeddings\(261\)"
    for model in (tiny_llama(), LlamaConfig(vocab_size=259)):
        with pytest.raises(UserError, match=reason):
            check_vocabulary(larger("NEWA", "NEWB"), model)


@pytest.mark.parametrize("rows", [259, 320])
def test_embeddings_may_have_more_rows_than_there_are_tokens(rows):
    check_vocabulary(byte_tokenizer(), tiny_llama(vocab_size=rows))
    check_vocabulary(byte_tokenizer(), LlamaConfig(vocab_size=rows))
    assert vocabulary_size(byte_tokenizer()) == 259


def test_the_sizes_are_compared_before_weights_are_read(base):
    (base / "model.safetensors").unlink()
    with pytest.raises(UserError, match="261 > 259"):
        load_base_and_tokenizer(BaseModelConfig(name_or_path=str(base)))


@pytest.mark.parametrize("verb", ["train", "validate-data"])
def test_both_verbs_stop_with_one_message(verb, base, tmp_path, capsys):
    (tmp_path / "data.jsonl").write_text('{"instruction": "hi", "output": "a NEWA b"}\n')
    (tmp_path / "run.yaml").write_text(
        f"base: {{name_or_path: {base}}}\nadapter: {{prompt_length: 2}}\n"
        f"data: {{train: [{{path: {tmp_path / 'data.jsonl'}}}]}}\n"
        f"training: {{output_dir: {tmp_path / 'out'}, use_cpu: true, max_steps: 1}}\n"
    )
    assert main([verb, str(tmp_path / "run.yaml")]) == 2
    shown = capsys.readouterr()
    assert "261 > 259" in (shown.out + shown.err).replace("\n", " ")
