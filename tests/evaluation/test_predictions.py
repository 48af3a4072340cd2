import pytest

from llama_adapter.errors import UserError
from llama_adapter.evaluation.predictions import pair, read_predictions


@pytest.mark.parametrize(
    "content",
    [
        {"7": "yes", "8": "no"},
        {"results": {"7": "yes", "8": "no"}, "acc": 50.0},
        [{"question_id": 7, "text": "yes", "prompt": "?"}, {"question_id": 8, "text": "no"}],
        [{"image_id": 7, "caption": "yes"}, {"image_id": 8, "caption": "no"}],
        [{"id": "7", "prediction": "yes", "answer": "wrong"}, {"id": "8", "prediction": "no", "answer": ""}],
    ],
)
def test_every_layout_gives_the_same_answers(save, content):
    assert read_predictions(save("p.json", content)).answers == {"7": "yes", "8": "no"}


def test_without_ids_the_order_counts(save):
    rows = [
        {"question_id": "height4_width5", "answer": "a"},
        {"question_id": "height4_width5", "answer": "b"},
    ]
    assert read_predictions(save("p.json", rows)).answers == {"0": "a", "1": "b"}
    assert read_predictions(save("p.jsonl", [{"answer": "a"}, {"answer": "b"}])).answers == {
        "0": "a",
        "1": "b",
    }
    nameless = [{"question_id": -1, "answer": "a"}, {"question_id": -1, "answer": "b"}]
    assert read_predictions(save("p.json", nameless)).answers == {"0": "a", "1": "b"}
    assert read_predictions(save("p.json", ["a", "b"])).answers == {"0": "a", "1": "b"}
    with pytest.raises(UserError, match="record 1 is 'b'. Use an object with named fields"):
        read_predictions(save("p.json", [{"answer": "a"}, "b"]))


def test_a_file_of_several_models_needs_a_choice(save):
    path = save("p.json", {"one": {"results": {"1": 0}, "acc": 3.5}, "two": {"results": {"1": 1}}})
    found = read_predictions(path, "one")
    assert (found.answers, found.stated) == ({"1": 0}, {"acc": 3.5})
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
        (
            [{"id": 1, "answer": "a"}, {"id": 1, "answer": "b"}],
            "the ids '1' are empty or come more than once",
        ),
        ([{"id": 1, "answer": "a"}, {"answer": "b"}], "the ids '' are empty"),
        ([{"id": 1}], "has none of the fields prediction"),
        ([3], "record 0 is '3'. Use an object"),
        ({"1": {"a": "b"}}, "the answer of '1' is .* Use a text"),
    ],
)
def test_what_holds_no_predictions_is_refused(save, content, said):
    with pytest.raises(UserError, match=said):
        read_predictions(save("p.json", content))


def test_questions_and_predictions_must_belong_together():
    assert pair(["1", "2"], ["2", "1"], allow_missing=False) == []
    with pytest.raises(
        UserError, match="1 of 2 questions have no prediction: '2'. Add them, or use --missing"
    ):
        pair(["1", "2"], ["1"], allow_missing=False)
    assert pair(["1", "2"], ["1"], allow_missing=True) == ["1 questions without a prediction count as wrong."]
    assert pair(["1"], ["1", "9"], allow_missing=False)[0].startswith("1 predictions belong to no question")
    with pytest.raises(UserError, match="'9' came, '1' are asked"):
        pair(["1"], ["9"], allow_missing=True)
    with pytest.raises(UserError, match="and 4 more"):
        pair([str(number) for number in range(13)], ["0"], allow_missing=False)
