"""Pieces of text: never half a character, never taken back, together the whole."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from llama_adapter.generation.streaming import TextStream


def run(decode, tokens):
    pieces = []
    stream = TextStream(decode, pieces.append)
    stream.put(torch.tensor([[7, 7, 7]]))  # the prompt
    for token in tokens:
        stream.put(torch.tensor([token]))
    stream.end()
    return pieces


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_bytes_stream_to_the_text_without_half_characters(text):
    pieces = run(lambda tokens: bytes(tokens).decode("utf-8", "replace"), list(text.encode()))
    assert "".join(pieces) == text
    if "\ufffd" not in text:
        assert all("\ufffd" not in piece for piece in pieces)


def test_words_appear_as_soon_as_they_are_whole():
    assert run(lambda tokens: "".join(map(chr, tokens)), map(ord, "an old llama\nsleeps")) == [
        "an ",
        "old ",
        "llama\n",
        "sleeps",
    ]


def test_the_prompt_is_not_written():
    assert run(lambda tokens: "".join(map(str, tokens)), []) == []
