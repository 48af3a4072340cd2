import pytest

from llama_adapter.data.fields import (
    known_role,
    list_of,
    optional_text,
    text_of,
)
from llama_adapter.data.records import RecordProblem


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"other": "x"}, r"the key 'output' is missing; it must be there \(found: 'other'\)"),
        ({}, r"found: none"),
        ({"output": 5}, r"'output' is int \('5'\); it must be text"),
        ({"output": None}, r"'output' is NoneType \('None'\); it must be text"),
        ({"output": "caf\udce9"}, r"'output' must be UTF-8, but has the byte 0xe9 at character 3"),
        ({"output": "\ud83d"}, r"half a surrogate pair, \\ud83d"),
    ],
)
def test_a_text_that_is_none_says_why(row, reason):
    with pytest.raises(RecordProblem, match=reason):
        text_of(row, "output")


def test_optional_text_may_be_missing_but_not_of_another_type():
    assert optional_text({}, "input") == optional_text({"input": None}, "input") == ""
    with pytest.raises(RecordProblem, match="'input' is list"):
        optional_text({"input": ["x"]}, "input")


@pytest.mark.parametrize("value", ["text", [1], None, {"role": "user"}])
def test_a_list_of_objects_is_nothing_else(value):
    with pytest.raises(RecordProblem, match="must be a list of objects"):
        list_of({"messages": value}, "messages")


def test_an_unknown_role_names_the_known_ones():
    with pytest.raises(RecordProblem, match="turn 3 has the unknown role 'critic'; use one of: human, gpt"):
        known_role("critic", {"human": "user", "gpt": "assistant"}, 3)
