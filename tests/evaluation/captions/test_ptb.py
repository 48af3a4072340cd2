"""The tokens of the Java program: golden cases of our own, and the program itself where it can run."""

import json
import random
import re
import shutil
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_adapter.evaluation.captions.java import tokenize_with_java
from llama_adapter.evaluation.captions.ptb import tokenize, tokenize_all

LINE_BREAKS = re.compile("[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")


@pytest.fixture(scope="module")
def cases(repository):
    """Texts written for this project, with the tokens that the Java program gives."""
    return json.loads((repository / "tests/golden/ptb_tokens.json").read_text())


@pytest.fixture(scope="module")
def java():
    pytest.importorskip("pycocoevalcap", reason="pip install pycocoevalcap")
    if shutil.which("java") is None:
        pytest.skip("java is not installed")
    return tokenize_with_java


def strings(value):
    """Every text inside a JSON value."""
    if isinstance(value, str):
        yield from filter(str.strip, LINE_BREAKS.split(value))
    elif isinstance(value, dict | list):
        for inside in value.values() if isinstance(value, dict) else value:
            yield from strings(inside)


def texts(path):
    if path.suffix == ".json":
        return list(strings(json.loads(path.read_text())))
    lines = path.read_text().splitlines()
    return list(strings([json.loads(line) for line in lines] if path.suffix == ".jsonl" else lines))


def assert_same(found, expected, source):
    wrong = [(text, a, b) for text, a, b in zip(source, found, expected, strict=True) if a != b]
    assert wrong == [], f"{len(wrong)} of {len(source)}"


def test_tokens_of_the_java_program(cases):
    assert len(cases) > 1500
    assert_same(
        [tokenize(text) for text, _ in cases], [tokens for _, tokens in cases], [text for text, _ in cases]
    )


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("A man's dog can't swim.", "a man 's dog ca n't swim"),
        ("They're gonna go; we cannot!", "they 're gon na go we can not"),
        ('He said "hello" (twice) - ok?', "he said hello -lrb- twice -rrb- ok"),
        ("Mr. Smith, the U.S. No. 1, paid $3.50...", "mr. smith the u.s. no. 1 paid $ 3.50"),
        ("", ""),
        ("...!", ""),
    ],
)
def test_what_captions_become(text, tokens):
    assert " ".join(tokenize(text)) == tokens


def test_the_end_of_a_caption_depends_on_the_next_one():
    assert tokenize_all(["It is at exit C.", "The dog"])[0][-1] == "c"
    assert tokenize_all(["It is at exit C.", "dogs"])[0][-1] == "c."
    assert tokenize_all(["it is no.", "5 dogs"])[0][-1] == "no."
    assert tokenize_all(["it is no.", "dogs"])[0][-1] == "no"


@given(st.text())
def test_any_text_gives_tokens_without_spaces(text):
    for token in tokenize(text):
        assert token
        assert not re.search(r"[ \t\r\n]", token)


@given(st.lists(st.sampled_from(["a", "dog", "runs", "two", "on", "grass"]), max_size=12))
def test_plain_words_are_their_own_tokens(words):
    assert tokenize(" ".join(words)) == words
    assert tokenize("  ".join(words).upper() + " .") == words


def test_many_captions_take_seconds():
    rng = random.Random(0)
    words = [f"word{number}" for number in range(500)] + ["it's", "a", "t-shirt,", "(red)", "10", "No."]
    captions = [" ".join(rng.choices(words, k=11)) + "." for _ in range(5000)]
    start = time.perf_counter()
    tokenize_all(captions)
    assert time.perf_counter() - start < 10  # 0.3 s on an idle core


def test_java_gives_the_same_for_our_cases(cases, java):
    source = [text for text, _ in cases]
    assert_same(tokenize_all(source), java(source), source)


@pytest.mark.slow
def test_java_gives_the_same_for_every_character(java):
    source = [f"x a{chr(code)}b {chr(code)} y" for code in range(0x20, 0xD800)]
    source += [f"x a{chr(code)}b {chr(code)} y" for code in range(0xE000, 0x11000)]
    source = [text for text in source if not LINE_BREAKS.search(text)]
    assert_same([tokenize(text) for text in source], java(source), source)


FOLDERS = ("captions", "scienceqa", "refcoco", "gsm8k", "instruct", "lm_text", "text_cls")
MIXED = (
    "the a I dog Bar é ünï man's don't a-b Q 5 1,000 3.5 2nd 90s Mr No etc U.S. e.g. Jr. cannot "
    "1/2 a/b $ £ % # & @ + = * / < > [ ] ( ) \" ' ` ’ “ ” … – - -- ... . , ; : ! ? :) <b> "
    "http://a.bc foo.com x@y.com @me #tag 's n't 'em o'clock mp3 .txt p.m. A&B ½ ° "
)
PIECES = MIXED.split()


def real_lines(shared_data, folder):
    files = [
        path
        for path in sorted((shared_data / folder).iterdir())
        if path.suffix in (".json", ".jsonl", ".txt", ".csv")
    ]
    return list(dict.fromkeys(text for path in files for text in texts(path)))


@pytest.mark.parametrize("folder", FOLDERS)
def test_java_gives_the_same_for_real_text(shared_data, java, folder):
    source = real_lines(shared_data, folder)
    start = random.Random(0).randrange(max(len(source) - 2000, 1))
    source = source[start : start + 2000]  # in one piece: the next line can matter
    assert_same(tokenize_all(source), java(source), source)


@pytest.mark.slow
@pytest.mark.parametrize("folder", FOLDERS)
def test_java_gives_the_same_for_all_real_text(shared_data, java, folder):
    source = real_lines(shared_data, folder)
    assert_same(tokenize_all(source), java(source), source)


@pytest.mark.slow
def test_java_gives_the_same_for_nearly_all_mixtures(java):
    rng = random.Random(0)
    source = [
        f"q {''.join(rng.choice(PIECES) + ' ' * (rng.random() < 0.3) for _ in range(rng.randint(2, 5)))} end"
        for _ in range(20000)
    ]
    found, expected = tokenize_all(source), java(source)
    differing = sum(a != b for a, b in zip(found, expected, strict=True))
    assert differing < 0.01 * len(source)
