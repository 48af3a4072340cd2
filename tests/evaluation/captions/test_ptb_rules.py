import re

import pytest

from llama_adapter.evaluation.captions.ptb_rules import (
    OPEN_INITIAL,
    OPEN_NUMBER,
    PATTERNS,
    SENTENCE_START,
    SPANS,
)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_no_rule_gives_an_empty_token(pattern):
    rule = re.compile(pattern)
    assert rule.match("") is None
    for text in ("n't", "'s", "a", "1", "-", ".", "It's 1/2."):
        found = rule.match(text)
        assert found is None or found.end(found.lastindex or 0) > 0


def test_only_texts_whose_tokens_may_hold_a_space_are_read_whole():
    for text in ("3 1/2", "<a b>", ". . .", "No. 5", "J. Smith", "(123) 456-7890"):
        assert SPANS.search(text)
    for text in ("a man in a red shirt.", "two dogs, one cat", "the no. of dogs. Then", "at 5 p.m. today"):
        assert not SPANS.search(text)


def test_ends_that_stay_open():
    assert OPEN_NUMBER.search("see fig.")
    assert not OPEN_NUMBER.search("a config.")
    assert OPEN_INITIAL.search("exit C.")
    assert not OPEN_INITIAL.search("a cat.")
    assert SENTENCE_START.match("The dog")
    assert not SENTENCE_START.match("Then.")
