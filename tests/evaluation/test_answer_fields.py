"""Which field of a record of predictions is scored; never the right answer beside it."""

import pytest

from llama_adapter.errors import UserError
from llama_adapter.evaluation.answer_fields import answers_of
from llama_adapter.evaluation.question import Question

GOLD = ({"question": "Why?", "answer": "red"}, {"question": "How?", "answer": "blue"})


def found(*records, questions=GOLD, field=None):
    asked = [Question(str(n), "", record=record) for n, record in enumerate(questions)]
    return list(answers_of(asked, records, list(range(len(records))), "p.json", field).values())


@pytest.mark.parametrize(
    ("name", "beside"),
    [
        ("prediction", {"answer": ("red", "blue")}),
        ("predicted_answer", {"answer": ("red", "blue"), "text": ("Why?", "How?")}),
        ("model_output", {"answer": ("red", "blue"), "output": ("red", "blue")}),
        ("response", {"answer": ("red", "blue"), "text": ("x", "y")}),
        ("output", {"answer": ("red", "blue")}),
        ("answer", {"text": ("Why?", "How?")}),
        ("answer", {"gt_answers": ("red", "blue"), "label": (1, 2), "prompt": ("p", "q")}),
        ("text", {"prompt": ("Why?", "How?"), "answer_id": ("a", "b"), "model_id": ("m", "m")}),
        ("caption", {"image_id": (1, 2)}),
    ],
)
def test_the_prediction_is_found_beside_others(name, beside):
    rows = [{key: values[n] for key, values in beside.items()} | {name: said} for n, said in enumerate("ab")]
    assert found(*rows) == ["a", "b"]


def test_a_prediction_that_is_missing_is_not_replaced_by_the_right_answer():
    assert found({"prediction": None, "answer": "red"}, {"prediction": "x", "answer": "blue"}) == ["x"]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"answer": "red", "text": "x"}, {"answer": "blue", "text": "y"}], "'answer', 'text' may all be"),
        (
            [{"response": "a", "output": "x"}, {"response": "b", "output": "y"}],
            "'response', 'output' may all",
        ),
        (
            [{"pred": "a", "generated": "x"}, {"pred": "b", "generated": "y"}],
            "'pred', 'generated' may all be",
        ),
        ([{"answer": "red", "my_answer": "x"}, {"answer": "blue", "my_answer": "y"}], "'my_answer' may be"),
        ([{"answer": "red", "llm_reply": "x"}, {"answer": "blue", "llm_reply": "y"}], "'llm_reply' may be"),
        ([{"answer": "red", "mine": "x"}, {"answer": "blue", "mine": "y"}], "'mine' may be"),
        ([{"label": "x"}, {"label": "y"}], "no record has an answer, its fields are 'label'. Use --answer-f"),
        ([{"prediction": ["a", "b"]}, {"prediction": "c"}], r"'prediction' of '0' is \['a', 'b'\]. Use one"),
        ([{"prediction": {"a": 1}}, {"prediction": "c"}], r"is \{'a': 1\}. Use one text"),
        ([{"prediction": float("nan")}, {"prediction": "c"}], "is nan. Use a text or a number"),
    ],
)
def test_what_cannot_be_told_is_refused(rows, said):
    with pytest.raises(UserError, match=said):
        found(*rows)


def test_the_user_may_name_the_field():
    rows = [{"answer": "red", "text": "x"}, {"answer": "blue", "text": "y"}]
    assert found(*rows, field="text") == ["x", "y"]
    with pytest.raises(UserError, match="no record has an answer under 'said'. Use one of 'answer', 'text'"):
        found(*rows, field="said")


def test_a_model_that_is_always_right_is_scored():
    assert found({"answer": "red"}, {"answer": "blue"}) == ["red", "blue"]
    assert found({"answer": "red", "prompt": "p", "read": "red"}, {"answer": "blue"}) == ["red", "blue"]


def test_gold_of_several_people_is_known_too():
    people = ({"answers": [{"answer": "red"}, {"answer": "pink"}]}, {"answers": ["blue"]})
    with pytest.raises(
        UserError, match="'answer' is the right answer in every record, and 'vqa_reply' may be"
    ):
        found({"answer": "pink", "vqa_reply": "x"}, {"answer": "blue", "vqa_reply": "y"}, questions=people)


def test_lists_and_objects_of_one_answer_are_that_answer():
    rows = [{"prediction": ["a"]}, {"prediction": [{"caption": "b"}]}]
    assert found(*rows) == ["a", "b"]
    assert found({"prediction": [1, 2, 3, 4]}, {"prediction": 5}) == [[1, 2, 3, 4], 5]
