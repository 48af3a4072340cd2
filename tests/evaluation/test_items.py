import pytest

from llama_adapter.errors import UserError
from llama_adapter.evaluation.items import mean, read_items
from llama_adapter.evaluation.vqa import VQA, VQAConfig


def test_official_vqa_annotations_and_plain_records_are_read(save):
    official = {
        "annotations": [{"question_id": 3, "image_id": 1, "answers": [{"answer": "x", "answer_id": 1}]}]
    }
    (item,) = read_items(save("a.json", official))
    assert (item.id, item.references) == ("3", [{"answer": "x", "answer_id": 1}])
    (item,) = read_items(
        save("b.jsonl", [{"id": "q", "gt_answers": "rack", "image_path": "i.jpg", "choices": [1]}])
    )
    assert (item.references, item.image, item.options) == (["rack"], "i.jpg", ["1"])


def test_row_numbers_stand_in_for_picture_sizes(save):
    rows = [{"question_id": "height4_width5", "gt_answers": [0, 0, 1, 1]}] * 2
    assert [item.id for item in read_items(save("a.json", rows))] == ["0", "1"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"x": 1}, "holds no list of questions"),
        ([{"id": 1}], "has none of the fields answers"),
        ([{"id": 1, "answers": []}], "has no reference answer"),
        ([3], "record 0 is 3"),
        ([{"id": 1, "answers": ["a"]}] * 2, "come more than once"),
    ],
)
def test_what_is_no_question_is_refused(save, content, said):
    with pytest.raises(UserError, match=said):
        read_items(save("a.json", content))


def test_a_model_is_asked_no_empty_question(save):
    path = save("a.json", [{"id": 7, "answers": ["x"]}, {"id": 8, "question": "Why?", "answers": ["x"]}])
    with pytest.raises(UserError, match="1 of 2 records have no question to ask: '7'. Add `question`"):
        VQA(VQAConfig(references=path, base="any")).questions()
    assert len(VQA(VQAConfig(references=path, predictions="any")).questions()) == 2


def test_the_mean_of_nothing_is_zero():
    assert (mean([]), mean([1, 0])) == (0, 0.5)
