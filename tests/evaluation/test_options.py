"""Which option is chosen, and that such scores are not taken for those of written answers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_adapter.errors import UserError
from llama_adapter.evaluation.choice import Choice, ChoiceConfig
from llama_adapter.evaluation.options import check_candidates, choose, likelihood_scores
from llama_adapter.evaluation.question import Question


def test_length_counts_only_where_it_is_asked_for():
    assert choose(["no", "maybe tomorrow"], [-3.0, -7.0]) == {
        "likelihood": 0,
        "likelihood_per_character": 1,
    }


@given(st.lists(st.tuples(st.text(min_size=3, max_size=3), st.floats(-50, 0)), min_size=2, max_size=6))
def test_options_of_one_length_are_chosen_alike_by_both(pairs):
    texts, values = zip(*pairs, strict=True)
    found = choose(texts, values)
    assert values[found["likelihood"]] == max(values)
    assert values[found["likelihood_per_character"]] == pytest.approx(max(values))


def test_scores_have_titles_of_their_own(save):
    rows = [{"id": n, "question": "?", "options": ["no", "maybe"], "answer": n} for n in range(2)]
    task = Choice(ChoiceConfig(references=save("r.json", rows), base="b"))
    questions = task.questions()
    assert [question.candidates for question in questions] == [["no", "maybe"]] * 2
    found = likelihood_scores(task, questions, {"0": [-1.0, -2.0], "1": [-1.0, -2.0]})
    assert {name: scores.value("accuracy") for name, scores in found.items()} == {
        "likelihood": 50,
        "likelihood_per_character": 50,
    }
    assert [scores.task for scores in found.values()] == [
        "Choice, by likelihood",
        "Choice, by likelihood per character",
    ]
    assert found["likelihood"].items[1] == {"id": "1", "read": "A", "correct": False}
    assert found["likelihood_per_character"].items[1] == {"id": "1", "read": "B", "correct": True}


@pytest.mark.parametrize(
    ("reference", "form", "expected"),
    [
        ("B", "auto", ["A", "B"]),
        (1, "auto", ["no", "yes"]),
        ("yes", "letter", ["A", "B"]),
        ("B", "text", ["no", "yes"]),
    ],
)
def test_what_stands_for_an_option(save, reference, form, expected):
    rows = [{"id": 1, "question": "?", "options": ["no", "yes"], "answer": reference}]
    task = Choice(ChoiceConfig(references=save("r.json", rows), base="b", options_as=form))
    assert task.questions()[0].candidates == expected


def test_questions_without_options_are_named():
    with pytest.raises(UserError, match="1 of 2 questions have no options to compare: 'b'. Use --score"):
        check_candidates([Question("a", "?", None, ["x", "y"], ["x", "y"]), Question("b", "?")])


def test_likelihoods_need_a_model(save, refused):
    references = save("r.json", [{"id": "a", "answers": ["red"]}])
    said = refused("choice", references=references, predictions="p.json", score="both")
    assert "score is 'both', but no model is run. Use --base or --adapter" in said
    said = refused("choice", references=references, base="b", score="both", as_published=True)
    assert "score is 'both', but as_published is a way of reading answers in words." in said
