"""Which prediction belongs to which question."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_adapter.errors import UserError
from llama_adapter.evaluation.joining import join, question_ids
from llama_adapter.evaluation.question import Question


def asked(*records, names=None):
    ids = question_ids(records, "r.json") if names is None else names
    return [Question(name, "", record=record) for name, record in zip(ids, records, strict=True)]


VIZWIZ = [{"image": f"VizWiz_val_{n}.jpg", "question": "What?"} for n in range(3)]
CHARTQA = [{"imgname": f"{n // 2}.png", "query": f"Which {n % 2}?"} for n in range(4)]
VSR = [{"image": f"{n // 2}.jpg", "caption": f"The cat is {n}.", "label": n % 2} for n in range(4)]
GQA = [{"key": f"k{n}", "imageId": "n1", "question": "Is it?"} for n in range(3)]
MME = [{"question_id": f"OCR/{n // 2}.png", "question": f"Is it {n}?"} for n in range(4)]
IDS = [{"id": n, "question": "?"} for n in range(3)]
ACCESSORY = [
    {"image_path": "a.jpg", "question": f"the {n}", "question_id": "height4_width5"} for n in range(3)
]


@pytest.mark.parametrize("records", [VIZWIZ, CHARTQA, VSR, GQA, MME, IDS, ACCESSORY])
@given(st.randoms())
def test_any_order_and_foreign_records_give_the_same_pairs(records, draw):
    predictions = [{**record, "n": n} for n, record in enumerate(records)]
    draw.shuffle(predictions)
    foreign = {"image": "other.jpg", "imageId": "o", "question": "Else?", "id": "x", "key": "x", "n": None}
    foreign = {key: value for key, value in foreign.items() if key in predictions[0] or key == "n"}
    if foreign.keys() == predictions[0].keys():
        predictions.insert(draw.randrange(len(predictions)), foreign)
    joined = join(asked(*records), predictions, "p.json")
    assert [predictions[place]["n"] for place in joined.places] == list(range(len(records)))
    assert not any("order" in note for note in joined.notes)


@pytest.mark.parametrize(
    ("question", "prediction", "note"),
    [
        ({"question_id": 7}, {"question_id": "7"}, None),
        ({"question_id": 7, "image_id": 1}, {"id": 7.0}, None),
        ({"image_id": 7}, {"id": 7}, None),
        ({"image": "a/7.jpg"}, {"image": "/b/7.png"}, "file name"),
        ({"image": "7.jpg"}, {"key": "7"}, "file name"),
        ({"image": "a/7.jpg"}, {"key": "b/7.png"}, "file name"),
        ({"audio": "a/7.wav"}, {"audio": "7.wav"}, "file name"),
        ({"image_id": "7f", "question_id": 1}, {"image": "7f.jpg", "answer": "x"}, "order"),
        ({"image_id": "7f", "question": "Why?"}, {"query": "Why? "}, "question"),
    ],
)
def test_one_key_is_enough(question, prediction, note):
    joined = join(asked(question), [prediction], "p.json")
    assert joined.places == [0]
    assert (note is None and not joined.notes) or any(note in said for said in joined.notes)


def test_the_key_that_finds_most_counts():
    """Row numbers from 1 beside the names of pictures."""
    predictions = [{"id": n + 1, "image": VIZWIZ[n]["image"]} for n in (2, 0, 1)]
    assert join(asked(*VIZWIZ), predictions, "p").places == [1, 2, 0]
    captions = [{"id": n, "image_id": 10 - n} for n in range(10)]
    questions = asked(*({"image_id": n} for n in range(1, 11)))
    assert join(questions, captions, "p").places == [9 - n for n in range(10)]


def test_row_numbers_stand_for_records_without_a_key():
    questions = asked({"question": "?"}, {"question": "?"})
    assert [question.id for question in questions] == ["0", "1"]
    assert join(questions, [{"key": "1"}, {"key": "0"}], "p").places == [1, 0]
    with pytest.raises(UserError, match="No prediction has the id of a question: '1', '2' came"):
        join(questions, [{"key": "1"}, {"key": "2"}], "p")


def test_by_order_only_where_nothing_else_is_there():
    joined = join(asked(*IDS), [{"prediction": "a"}] * 3, "p.json")
    assert joined.places == [0, 1, 2]
    assert joined.notes == ["Predictions were joined by order: nothing names the question of a prediction."]
    for count in (2, 4):
        with pytest.raises(UserError, match=f"holds {count} predictions for 3 questions, and nothing but"):
            join(asked(*IDS), [{"prediction": "a"}] * count, "p.json")
    assert join(asked(*IDS), [{"prediction": "a"}] * 9, "p.json", limited=True).places == [0, 1, 2]


def test_a_key_of_several_records_must_come_in_the_same_sequence():
    questions = asked(*CHARTQA)
    same = [{"imgname": row["imgname"]} for row in CHARTQA]
    joined = join(questions, same, "p.json")
    assert (joined.places, len(joined.notes)) == ([0, 1, 2, 3], 1)
    assert "in the same sequence" in joined.notes[0]
    with pytest.raises(UserError, match="a file name names several records.*Add `question`"):
        join(questions, same[::-1], "p.json")
    sizes = asked(*({"question_id": f"height{n}_width5"} for n in (4, 4, 6)))
    given_sizes = [{"question_id": f"height{n}_width5"} for n in (6, 4, 4)]
    with pytest.raises(UserError, match="in another sequence than the questions"):
        join(sizes, given_sizes, "p.json")


def test_ids_that_contradict_the_pictures_are_refused():
    questions = asked({"id": 1, "image": "a.jpg"}, {"id": 2, "image": "b.jpg"})
    predictions = [{"id": 1, "image": "b.jpg"}, {"id": 2, "image": "a.jpg"}]
    with pytest.raises(UserError, match="for question '1' is about the picture 'b', the question about 'a'"):
        join(questions, predictions, "p.json")


@pytest.mark.parametrize(
    ("predictions", "said"),
    [
        ([{"id": 8}, {"id": 9}], "No prediction has the id of a question: '8', '9' came, '0', '1', '2' are"),
        ([{"id": 1}, {"id": 1}, {"id": 2}], "the ids '1' are empty or come more than once"),
        ([{"id": 1}, {}, {"id": 2}], "the ids '' are empty"),
        ([{"id": [1]}], r"The field 'id' of a record is \[1\]. Use a text or a number"),
        ([{"id": True}], "is True. Use a text or a number"),
        ([{"id": float("nan")}], "is nan. Use a text or a number"),
    ],
)
def test_keys_that_name_nothing_are_refused(predictions, said):
    with pytest.raises(UserError, match=said):
        join(asked(*IDS), predictions, "p.json")


@pytest.mark.parametrize(
    ("records", "names"),
    [
        (VIZWIZ, [f"VizWiz_val_{n}.jpg" for n in range(3)]),
        (CHARTQA, ["0", "1", "2", "3"]),
        (MME, ["0", "1", "2", "3"]),
        (ACCESSORY, ["0", "1", "2"]),
        ([{"question_id": -1}] * 2, ["0", "1"]),
        ([{"image_id": 5}, {"image_id": 6}], ["5", "6"]),
    ],
)
def test_what_questions_are_called(records, names):
    assert question_ids(records, "r.json") == names


@pytest.mark.parametrize(
    "records", [[{"id": 1}] * 2, [{"id": 1}, {}], [{"image_id": 1, "question": "?"}] * 2]
)
def test_repeated_ids_are_refused(records):
    with pytest.raises(UserError, match="r.json: the ids .* are empty or come more than once"):
        question_ids(records, "r.json")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from(["id", "question_id", "image_id", "image", "img", "question", "key", "text", "x"])


@given(st.lists(st.dictionaries(KEYS, JSON), min_size=1, max_size=4), st.integers(0, 99))
def test_whatever_keys_are_they_join_or_are_refused(records, seed):
    try:
        questions = asked(*records)
        shuffled = random.Random(seed).sample(records, len(records))
        joined = join(questions, shuffled, "p.json")
    except UserError:
        return
    assert len(joined.places) == len(records)
