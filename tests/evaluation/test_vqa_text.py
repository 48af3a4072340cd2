import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_adapter.evaluation.vqa_text import CONTRACTIONS, normalise, strip_punctuation


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("Yes.", "yes"),
        ("The Dogs", "dogs"),
        ("two", "2"),
        ("none", "0"),
        ("10", "10"),
        ("eight or nine", "8 or 9"),
        ("10,000", "10000"),
        ("dont know", "don't know"),
        ("red/blue", "red blue"),
        ("red / blue", "red  blue".replace("  ", " ")),
        ("3.5", "3.5"),
        ("it's 3.", "it's 3"),
        ("U.S.", "us"),
        ("t-shirt", "t shirt"),
        (" a\tcat\n", "cat"),
    ],
)
def test_rules(text, plain):
    assert normalise(text) == plain


def test_words_of_their_own_are_no_contractions():
    assert not {"its", "well", "were", "hell", "shell", "wed", "shed"} & set(CONTRACTIONS)
    assert CONTRACTIONS["couldve"] == "could've"
    assert all(key == value.replace("'", "") for key, value in CONTRACTIONS.items())


def test_the_published_rule_for_full_stops_differs_behind_a_digit():
    assert strip_punctuation("3.x", as_published=True) == "3x"
    assert strip_punctuation("3.x") == "3.x"
    assert strip_punctuation("." * 40, as_published=True) == "." * 8


@given(st.text())
def test_any_text_can_be_normalised_in_both_ways(text):
    assert normalise(text) == normalise(text.upper().lower() if text.isascii() else text)
    normalise(text, as_published=True)
