"""What a settings file may hold: bounded, without doubles, with the line of what is wrong."""

import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from llama_adapter.errors import UserError
from llama_adapter.yaml_text import parse_yaml, read_yaml

BOMB = "".join(f"x{n}: &x{n} [{', '.join([f'*x{n - 1}' if n else 'lol'] * 10)}]\n" for n in range(9))

REFUSED = [
    ("a: 1\nb: 2\na: 3\n", "line 3: 'a' was set in line 1 already"),
    ("a:\n  b: {c: 1, c: 2}\n", "line 2: 'c' was set in line 2"),
    (BOMB, "more than 100000 values"),
    ("base: &a [*a]\n", r"line 1: '\*a' stands inside what it names"),
    ("a: &a\n  <<: *a\n", r"line 2: '\*a' stands inside"),
    ("a: [" + "[" * 100_000, "levels|nesting|not valid YAML"),
    ("a: " + "{a: " * 60, "50 levels"),
    ("a: 1\n---\nb: 2\n", "line 2: a second document"),
    ("? [a]\n: b\n", "line 1: a key is a sequence"),
    ("a: !!python/object/apply:os.system ['true']\n", "line 1: could not determine a constructor"),
    ("a: !!python/name:os.system\n", "line 1"),
    ("a: !!python/module:os\n", "line 1"),
    ("a: \0\n", "not valid YAML"),
    ("base:\n\tname: x\n", "line 2: found character"),
    ("seed: " + "9" * 5000, "line 1: 99999999999999999999... has 5000 digits"),
    ("a: *nowhere\n", "line 1"),
    ("a: !!int x\n", "not valid YAML"),
    ("a: !!float x\n", "not valid YAML"),
    ("a: !!timestamp 2001-99-99\n", "not valid YAML"),
]


@pytest.mark.parametrize(("text", "said"), REFUSED, ids=[text[:20] for text, _ in REFUSED])
def test_what_no_settings_file_holds_is_one_message_with_its_line(text, said):
    with pytest.raises(UserError, match=said):
        parse_yaml(text)


READ = [
    ("rows: 1:30", {"rows": "1:30"}),
    ("day: 2001-01-01", {"day": "2001-01-01"}),
    ("eval_strategy: no", {"eval_strategy": "no"}),
    ("a: true\nb: False\nc: null\nd: ~\ne:", {"a": True, "b": False, "c": None, "d": None, "e": None}),
    ("a: 010", {"a": "010"}),
    ("a: 1e-3\nb: 1.5E3\nc: .5\nd: -1", {"a": 0.001, "b": 1500.0, "c": 0.5, "d": -1}),
    ("1: 2\ntrue: 3\n~: 4", {"1": 2, "true": 3, "~": 4}),
    ("a: &x {b: 1}\nc: {<<: *x, d: 2}", {"a": {"b": 1}, "c": {"b": 1, "d": 2}}),
    ("# nothing", None),
    ("", None),
]


@pytest.mark.parametrize(("text", "value"), READ)
def test_scalars_are_those_of_yaml_1_2_and_keys_are_texts(text, value):
    assert parse_yaml(text) == value


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path):
    (tmp_path / "bom.yaml").write_bytes(b"\xef\xbb\xbfbase: 3\n")
    assert read_yaml(tmp_path / "bom.yaml") == {"base": 3}
    (tmp_path / "latin.yaml").write_bytes(b"\xff\xfe\0a")
    with pytest.raises(UserError, match="latin.yaml: not UTF-8 at byte 0"):
        read_yaml(tmp_path / "latin.yaml")


def only_our_errors(text):
    """Parses a text; anything but our own error fails the test."""
    try:
        parse_yaml(text)
    except UserError:
        return


PIECES = st.sampled_from(
    ["a", ": ", "\n", "  ", "- ", "{", "}", "[", "]", ", ", "&x ", "*x", "<<: ", "? ", "---\n", "!!int ",
     "!!set ",
     "'", '"', "\\x", "|\n", ">-\n", "#", "1", "0x", ".nan", "1e999", "%YAML 1.1\n", "\t", "~", "\0"]
)  # fmt: skip
TEXTS = st.one_of(st.text(max_size=60), st.lists(PIECES, max_size=30).map("".join))


@effort(max_examples=300, deadline=None)
@given(TEXTS)
def test_any_text_is_read_or_refused(text):
    only_our_errors(text)


@pytest.mark.slow
@effort(max_examples=20_000, deadline=None)
@given(TEXTS)
def test_any_text_is_read_or_refused_at_length(text):
    only_our_errors(text)
