import random

from hypothesis import given
from hypothesis import strategies as st

from llama_adapter.evaluation.choice import judge, plain, published_choice
from llama_adapter.evaluation.items import Item


def item(*references, **row):
    return Item("1", "?", list(references), row)


def test_published_cases(golden):
    draw = random.Random(0)
    for row in golden["exact_match"]:
        if row["annotation"] not in "ABCDE":
            assert published_choice(row["answer"], row["annotation"], draw)[1] == row["correct"], row
    for row in golden["multiple_choice_one_by_one"]:
        read, _ = published_choice(row["answer"], row["gt_answers"], draw)
        assert (read is not None) == row["letter_recognised"], row
    for row in golden["gqa_one_by_one"]:
        correct = published_choice(row["answer"], row["gt_answers"], draw)[1]
        assert f"{{'accuracy': {float(correct)}}}" == row["printed"]


def test_letters_are_read_where_the_published_code_draws():
    for answer in ("b", " B", "(B)", "The answer is B", "B. two"):
        assert judge(answer, item("B")) == ("B", True)
    assert judge("banana", item("B")) == (None, False)


def test_options_by_index_letter_or_text():
    options = {"choices": ["north", "south"]}
    for reference in (1, "B", "south"):
        assert judge("B", item(reference, **options)) == ("B", True)
        assert judge("North.", item(reference, **options)) == ("A", False)


def test_texts_are_equal_but_for_case_spaces_and_a_full_stop():
    assert judge("New  York.", item("new york"))[1]
    assert judge("big apple", item("new york", "Big Apple"))[1]
    assert not judge("3.5", item("35"))[1]
    assert not judge(None, item("x"))[1]


def test_random_letters_only_as_published(save, evaluate):
    references = save("r.json", [{"id": n, "answer": "B"} for n in range(200)])
    predictions = save("p.json", dict.fromkeys(range(200), "no idea"))
    plainly, _, printed = evaluate("choice", references=references, predictions=predictions)
    assert plainly["scores"]["accuracy"] == 0
    assert "200 of 200 answers name no single option and count as wrong" in printed
    drawn, _, printed = evaluate("choice", references=references, predictions=predictions, as_published=True)
    assert 8 < drawn["scores"]["accuracy"] < 32
    assert "got a random letter" in printed
    other, _, _ = evaluate(
        "choice", references=references, predictions=predictions, as_published=True, seed=5
    )
    again, _, _ = evaluate(
        "choice", references=references, predictions=predictions, as_published=True, seed=5
    )
    assert other == again


@given(st.text())
def test_every_text_equals_itself(text):
    assert plain(text) == plain(plain(text)) or text.rstrip().endswith("..") or ". " in text + " "
    judge(text, item("A"))
    published_choice(text, "A", random.Random(0))
