import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_adapter.evaluation.vqa import vqa_accuracy, vqa_accuracy_as_published
from llama_adapter.evaluation.vqa_text import normalise


def test_published_cases(golden):
    for row in golden["vqa_accuracy"]["rows"]:
        assert normalise(row["prediction"], as_published=True) == row["normalised_prediction"]
        score = vqa_accuracy_as_published(row["prediction"], row["answers"])
        assert round(100 * score, 2) == row["score_percent"], row
    same = [{"answer": "yes"} for _ in range(10)]
    assert (
        vqa_accuracy_as_published("yes", same)
        == golden["vqa_accuracy"]["same_answers_without_answer_id_score"]
    )


def test_published_total_from_the_command_line(golden, save, evaluate):
    rows = golden["vqa_accuracy"]["rows"]
    references = save("r.json", [{"id": n, "answers": row["answers"]} for n, row in enumerate(rows)])
    predictions = save("p.json", {n: row["prediction"] for n, row in enumerate(rows)})
    found, items, _ = evaluate("vqa", references=references, predictions=predictions, as_published=True)
    assert round(found["scores"]["all"], 2) == golden["vqa_accuracy"]["overall"]
    assert len(items) == len(rows)


def test_both_sides_are_normalised_alike():
    assert vqa_accuracy("Apple", ["Apple"] * 10) == vqa_accuracy("apple", ["An apple."] * 10) == 1
    assert vqa_accuracy("2", ["two"] * 10) == 1


def test_leaving_one_out():
    answers = ["dog"] * 3 + ["cat"] * 7
    assert vqa_accuracy("dog", answers) == pytest.approx((3 * 2 / 3 + 7) / 10)
    assert vqa_accuracy("cat", answers) == 1
    assert vqa_accuracy("bird", answers) == 0


def test_few_references_need_fewer_to_agree():
    assert vqa_accuracy("a dog", ["dog"]) == 1
    assert vqa_accuracy("dog", ["dog", "cat"]) == 0.5
    assert vqa_accuracy("dog", ["dog", "dog"]) == 1


def test_types_of_answers_have_rows(save, evaluate):
    rows = [
        {"question_id": 1, "answers": [{"answer": "yes"}] * 10, "answer_type": "yes/no"},
        {"question_id": 2, "answers": [{"answer": "red"}] * 10, "answer_type": "other"},
    ]
    references = save("r.json", {"annotations": rows})
    found, _, _ = evaluate(
        "vqa", references=references, predictions=save("p.json", {"1": "yes", "2": "blue"})
    )
    assert found["scores"] == {"other": 0, "yes/no": 100, "all": 50}


@given(st.text(), st.lists(st.text(), min_size=1, max_size=12), st.randoms())
def test_a_share_whatever_comes_and_in_whatever_order(prediction, answers, random):
    score = vqa_accuracy(prediction, answers)
    assert 0 <= score <= 1
    shuffled = random.sample(answers, len(answers))
    assert vqa_accuracy(prediction, shuffled) == pytest.approx(score)
    assert vqa_accuracy(answers[0], [answers[0]] * len(answers)) == 1
