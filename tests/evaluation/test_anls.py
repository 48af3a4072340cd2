import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_adapter.evaluation.anls import distance, similarity


def test_published_cases(golden):
    for row in golden["anls"]:
        assert similarity(row["prediction"], row["answers"], as_published=True) == pytest.approx(row["score"])


def test_spaces_do_not_change_the_length():
    assert similarity("a  x", ["a y"]) == pytest.approx(2 / 3)
    assert similarity("a  x", ["a y"], as_published=True) == pytest.approx(3 / 4)


def test_threshold_and_nearest_reference():
    assert similarity("abcd", ["abxy"]) == 0.5
    assert similarity("abc", ["axy"]) == 0
    assert similarity("cat", ["dog", "Cat"]) == 1
    assert similarity("", [""]) == 1


@given(st.text(max_size=12), st.text(max_size=12))
def test_distance_is_a_metric(first, second):
    assert distance(first, second) == distance(second, first) <= max(len(first), len(second))
    assert (distance(first, second) == 0) == (first == second)


@given(st.text(max_size=12), st.lists(st.text(max_size=12), min_size=1, max_size=3))
def test_what_is_said_is_nearest_to_itself(text, others):
    assert similarity(text, [*others, text]) == 1
    assert 0 <= similarity(text, others) <= 1


def test_from_the_command_line(save, evaluate):
    references = save(
        "r.jsonl", [{"questionId": 1, "answers": ["ITC Limited"]}, {"questionId": 2, "answers": ["x"]}]
    )
    found, items, _ = evaluate(
        "anls", references=references, predictions=save("p.json", {"1": "itc limited", "2": "q"})
    )
    assert found["scores"]["ANLS"] == 0.5
    assert [item["score"] for item in items] == [1, 0]
