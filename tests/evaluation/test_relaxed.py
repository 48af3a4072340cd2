import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_adapter.evaluation.relaxed import as_number, relaxed_match, relaxed_match_as_published


def test_published_cases(golden):
    for row in golden["relaxed_accuracy"]:
        assert relaxed_match_as_published(row["answer"], row["annotation"]) == row["correct"], row


@pytest.mark.parametrize(
    ("prediction", "reference", "right"),
    [
        *(("13.3", "14", True), ("13.2", "14", False), ("14.7", "14", True), ("14.8", "14", False)),
        *(("50%", "0.5", True), ("0.0", "0", True), ("0", "0.0", True), ("0.01", "0", False)),
        *(("Blue ", "blue", True), ("1,000", "1000", False), ("-5", "-5.2", True), ("nan", "nan", True)),
    ],
)
def test_five_percent_of_the_reference(prediction, reference, right):
    assert relaxed_match(prediction, reference) == right


def test_published_code_takes_five_percent_of_the_prediction():
    assert relaxed_match("19", "20")
    assert not relaxed_match_as_published("19", "20")
    assert not relaxed_match("21.05", "20")
    assert relaxed_match_as_published("21.05", "20")


@given(st.text(), st.text())
def test_any_two_texts_can_be_compared(prediction, reference):
    assert relaxed_match(prediction, prediction)
    relaxed_match(prediction, reference)
    relaxed_match_as_published(prediction, reference)


def test_what_is_no_number():
    assert [as_number(text) for text in ("x", "", "%", "inf", "nan", "1 %")] == [
        None,
        None,
        None,
        None,
        None,
        0.01,
    ]


def test_from_the_command_line(save, evaluate):
    references = save("r.json", [{"id": 1, "label": "20"}, {"id": 2, "label": "Blue"}])
    found, _, _ = evaluate(
        "relaxed", references=references, predictions=save("p.json", {"1": "19", "2": "red"})
    )
    assert found["scores"]["accuracy"] == 50
