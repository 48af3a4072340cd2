"""Records of every task become instructions and answers; boxes lie where the model's padding puts them."""

import json

import pytest

from llama_adapter.data import DataConfig, SourceConfig, build_datasets
from llama_adapter.data.config import TaskConfig
from llama_adapter.data.sources import canonical_rows, source_plans
from llama_adapter.errors import UserError
from sphinx_ft.boxes import find_marks
from sphinx_ft.tasks import TASKS
from tests.tiny import byte_tokenizer

SIZE = {"image": "a.jpg", "width": 200, "height": 100}
BOX = [0, 0, 100, 100]
ROWS = {
    "vqa": ({"question": "How many?", "answers": ["2"]}, "2"),
    "caption": ({"caption": "a cat"}, "a cat"),
    "region": ({"box": BOX, "caption": "a cat"}, "a cat"),
    "grounding": ({"expression": "the cat.", "box": BOX}, "[0.00,0.25,0.50,0.75]"),
    "ocr": ({"text": "EXIT"}, "EXIT"),
    "layout": (
        {"regions": [{"label": "title", "box": BOX, "text": "The\nnews"}, {"label": "figure", "box": BOX}]},
        "title [0.00,0.25,0.50,0.75]: The news\nfigure [0.00,0.25,0.50,0.75]",
    ),
    "pose": ({"points": [{"label": "nose", "point": [100, 50]}]}, "nose [0.50,0.50]"),
    "detection": (
        {
            "objects": [
                {"label": "cat", "box": BOX},
                {"label": "dog", "box": BOX},
                {"label": "cat", "box": [100, 0, 200, 100]},
            ]
        },
        "cat [0.00,0.25,0.50,0.75], [0.50,0.25,1.00,0.75]; dog [0.00,0.25,0.50,0.75]",
    ),
    "text": ({"instruction": "Add.", "input": "1 2", "output": "3"}, "3"),
}


@pytest.fixture
def read(tmp_path):
    """Canonical records of rows, and the source they come from."""

    def run(rows, **task):
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return list(canonical_rows(source_plans(SourceConfig(path=str(path), task=TaskConfig(**task)))))

    return run


def test_all_tasks_are_tried():
    assert set(ROWS) == set(TASKS)


@pytest.mark.parametrize("name", TASKS)
def test_a_record_becomes_question_and_answer(read, name):
    row, answer = ROWS[name]
    (record,) = read([{**SIZE, **row} if name != "text" else row], name=name)
    assert record["problem"] == ""
    assert record["type"] == name
    asked, said = record["turns"]
    assert said["text"] == answer
    assert "{" not in asked["text"]
    assert record["media"] == ([] if name == "text" else ["a.jpg"])
    assert record["characters"] == len(asked["text"]) + len(answer)


def test_what_the_record_holds_stands_in_the_instruction(read):
    (record,) = read([{**SIZE, **ROWS["region"][0]}], name="region", padding="end")
    assert [mark.place for mark in find_marks(record["turns"][0]["text"])] == [(0, 0, 0.5, 0.5)]
    (record,) = read([{**SIZE, "question": "Is {question} {box}?", "answer": "no"}], name="vqa")
    assert record["turns"][0]["text"].startswith("Is {question} {box}?\nAnswer the question using")


@pytest.mark.parametrize(
    ("boxes", "box"),
    [
        ("pixels", [20, 10, 60, 50]),
        ("pixels_xywh", [20, 10, 40, 40]),
        ("picture", [0.1, 0.1, 0.3, 0.5]),
        ("square", [0.1, 0.3, 0.3, 0.5]),
    ],
)
def test_boxes_of_every_kind_are_the_same_box(read, boxes, box):
    (record,) = read([{**SIZE, "expression": "it", "box": box}], name="grounding", boxes=boxes)
    assert record["turns"][1]["text"] == "[0.10,0.30,0.30,0.50]"


def test_a_grid_of_another_shape_has_another_square(read):
    (record,) = read([{**SIZE, "expression": "it", "box": BOX}], name="grounding", grid="1x2")
    assert record["turns"][1]["text"] == "[0.00,0.25,0.50,0.75]"
    tall = {"image": "a.jpg", "width": 100, "height": 100, "expression": "it", "box": BOX}
    (record,) = read([tall], name="grounding", grid="1x2")
    assert record["turns"][1]["text"] == "[0.25,0.25,0.75,0.75]"


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"expression": "it", "box": BOX}, "width is None"),
        ({**SIZE, "expression": "it", "box": [1, 2, 3]}, "must be 4 numbers"),
        ({**SIZE, "expression": "it"}, "must be 4 numbers"),
        ({**SIZE, "expression": "it", "box": [0, 0, 900, 100]}, "outside of the picture"),
        ({**SIZE, "expression": "it", "box": [50, 0, 20, 100]}, "come before"),
        ({**SIZE, "box": BOX}, "'expression' is missing"),
    ],
)
def test_bad_records_are_named(read, row, problem):
    (record,) = read([row], name="grounding")
    assert problem in record["problem"]


def test_instructions_of_the_users_own(read, tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text("caption: ['Beschreibe das Bild.']\n")
    (record,) = read([{**SIZE, "caption": "a cat"}], name="caption", instructions=str(own))
    assert record["turns"][0]["text"] == "Beschreibe das Bild."
    with pytest.raises(UserError, match="instructions of 'vqa' are 'None'"):
        read([{**SIZE, "question": "a", "answer": "b"}], name="vqa", instructions=str(own))
    with pytest.raises(UserError, match="no file"):
        read([SIZE], name="caption", instructions="nowhere.yaml")


def test_of_several_texts_a_record_always_gets_the_same(read):
    rows = [{**SIZE, "caption": f"cat {n}"} for n in range(40)]
    asked = [[record["turns"][0]["text"] for record in read(rows, name="caption")] for _ in range(2)]
    assert asked[0] == asked[1]
    assert len(set(asked[0])) == 2


def test_a_mixture_of_tasks_is_one_data_set(tmp_path):
    sources = []
    for name, (row, _) in ROWS.items():
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps({**SIZE, **row}) + "\n" for _ in range(3)))
        sources.append(SourceConfig(path=str(path), task=TaskConfig(name=name), weight=1.0))
    config = DataConfig(
        train=sources, template="sphinx", media="keep", max_length=600, cache_dir=str(tmp_path / "cache")
    )
    rows = build_datasets(config, byte_tokenizer()).train
    assert set(rows["type"]) == set(TASKS)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"name": "vqu"}, "task.name is 'vqu'"), ({"name": "vqa", "grid": "two"}, "grid is 'two'")],
)
def test_settings_that_mean_nothing(read, settings, message):
    with pytest.raises(UserError, match=message):
        read([SIZE], **settings)
