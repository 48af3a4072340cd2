import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_adapter.errors import UserError
from llama_adapter.evaluation.values import brief, is_numbers, key_text, scalar_text, single, single_text


def test_ids_are_equal_however_numbers_are_written():
    assert key_text(1, "x") == key_text("1", "x") == key_text(1.0, "x") == "1"
    for value in (True, None, [1], {"a": 1}, float("inf")):
        with pytest.raises(UserError, match="x is .* Use a text or a number"):
            key_text(value, "x")


def test_texts_and_numbers_are_text():
    assert [scalar_text(value, "x") for value in ("a", 1, 2.5, True)] == ["a", "1", "2.5", "true"]


def test_one_answer_may_be_wrapped():
    assert [single(value, "x") for value in (["a"], {"answer": "a"}, [{"caption": "a"}], [["a"]])] == [
        "a"
    ] * 4
    assert single({"answer": "a", "text": "a"}, "x") == "a"
    assert single([1, 2], "x") == [1, 2]
    assert single(None, "x") is None
    for value in (["a", "b"], {"answer": "a", "text": "b"}, {"b": "a"}, [], {}, [1, None]):
        with pytest.raises(UserError, match="Use one text"):
            single(value, "x")
    with pytest.raises(UserError, match="Use a text or a number"):
        single_text(None, "x")


def test_numbers_are_finite():
    assert is_numbers([1, 2.5])
    assert not any(map(is_numbers, ([1], [1, True], [1, float("nan")], ["1", "2"], (1, 2), 3)))


def test_messages_stay_short():
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    assert len(brief(deep)) < 100
    assert len(brief("x" * 10_000)) < 100
    while deep:  # freed one by one: the interpreter's own way would use up its stack
        deep = deep.pop()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON)
def test_no_structure_becomes_a_text(value):
    try:
        found = single_text(value, "x")
    except UserError:
        return
    assert not found.startswith(("[", "{")) or isinstance(single(value, "x"), str)
