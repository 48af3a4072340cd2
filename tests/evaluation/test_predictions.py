import pytest

from llama_adapter.errors import UserError
from llama_adapter.evaluation.predictions import read_predictions


@pytest.mark.parametrize(
    ("content", "records"),
    [
        ({"7": "yes"}, [{"key": "7", "prediction": "yes"}]),
        ({"7": ["yes"]}, [{"key": "7", "prediction": ["yes"]}]),
        ({"7": {"answer": "yes", "id": 3}}, [{"key": "7", "answer": "yes", "id": 3}]),
        ({"results": {"7": "yes"}, "acc": 50.0}, [{"key": "7", "prediction": "yes"}]),
        ([{"question_id": 7, "text": "yes"}], [{"question_id": 7, "text": "yes"}]),
        ({"data": [{"id": 7, "answer": "yes"}], "n": 1}, [{"id": 7, "answer": "yes"}]),
        ({"results": [{"id": 7, "answer": "yes"}]}, [{"id": 7, "answer": "yes"}]),
        (["yes", "no"], [{"prediction": "yes"}, {"prediction": "no"}]),
    ],
)
def test_layouts_become_records(save, content, records):
    assert read_predictions(save("p.json", content)).records == records


def test_lines_are_records_whatever_the_file_is_called(tmp_path):
    for name in ("p.jsonl", "p.json"):
        (tmp_path / name).write_text('\ufeff{"id": 1, "answer": "a\u2028b"}\n{"id": 2, "answer": "c"}\n')
        found = read_predictions(tmp_path / name).records
        assert found == [{"id": 1, "answer": "a\u2028b"}, {"id": 2, "answer": "c"}]


def test_a_file_of_several_models_needs_a_choice(save):
    path = save("p.json", {"one": {"results": {"1": 0}, "acc": 3.5}, "two": {"results": {"1": 1}}})
    found = read_predictions(path, "one")
    assert (found.records, found.stated) == ([{"key": "1", "prediction": 0}], {"acc": 3.5})
    with pytest.raises(UserError, match="no model was chosen. Use --model with 'one', 'two'"):
        read_predictions(path)
    with pytest.raises(UserError, match="there is no 'three'"):
        read_predictions(path, "three")
    with pytest.raises(UserError, match="holds one model, but model is 'one'"):
        read_predictions(save("q.json", {"1": "a"}), "one")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([], "holds no predictions"),
        ({}, "is empty"),
        ("text", "holds no predictions"),
        (None, "holds no predictions"),
        (3, "holds no predictions"),
        ({"results": {}}, "is empty"),
        ([3], "record 0 is 3. Use an object"),
        ([["1", "a"]], r"record 0 is \['1', 'a'\]. Use an object"),
        ([{"answer": "a"}, "b"], "record 1 is 'b'. Use an object with named fields"),
    ],
)
def test_what_holds_no_predictions_is_refused(save, content, said):
    with pytest.raises(UserError, match=said):
        read_predictions(save("p.json", content))
