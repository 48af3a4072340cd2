from hypothesis import given
from hypothesis import strategies as st

from llama_adapter.evaluation.captions.ptb_characters import LETTER, MARK, NOTHING, SYMBOL, clean, shape


@given(st.text())
def test_a_shape_is_as_long_as_its_text(text):
    assert len(shape(text)) == len(text)


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E)))
def test_printable_ascii_is_its_own_shape(text):
    assert shape(text) == clean(text) == text


def test_kinds_of_characters():
    assert shape("é日\u0301°😀\t") == LETTER + LETTER + MARK + SYMBOL + NOTHING + " "
    assert shape("٣") == "0"


def test_windows_characters_and_soft_hyphens_are_repaired():
    assert clean("it\x92s \x93so\xad-so\x94") == "it’s “so-so”"
