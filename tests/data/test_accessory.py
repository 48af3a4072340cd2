"""LLaMA2-Accessory's lists of data are read as they are."""

import random

import pytest

from llama_adapter.data import DataConfig, SourceConfig, build_datasets
from llama_adapter.data.accessory import expand_sources
from llama_adapter.errors import UserError

DIALOG = [
    {
        "image": f"{n}.jpg",
        "conversations": [{"from": "human", "value": " <image>\nHow many? "}, {"from": "gpt", "value": n}],
    }
    for n in range(10)
]
SINGLE = [{"instruction": "Say it " + "x" * n, "output": "yes"} for n in range(4)]


@pytest.fixture
def listed(write, tmp_path):
    dialogs, single = write("dialogs.json", DIALOG), write("single.jsonl", SINGLE)
    captions = write("captions.csv", "url\tcaption\na.jpg\ta cat, asleep\n")
    return write(
        "meta.yaml",
        f"""META:
  - path: {dialogs}
    type: image_text
    root: pictures/
    ratio: 0.5
  - path: {single}
    type: text
  - path: {captions}
    type: image_text
    preprocess: caption
""",
    )


def test_a_list_is_a_source_like_any_other(listed, byte_level, tmp_path):
    config = DataConfig(
        train=[SourceConfig(path=str(listed))],
        template="sphinx",
        media="keep",
        max_length=400,
        cache_dir=str(tmp_path / "cache"),
    )
    rows = build_datasets(config, byte_level).train
    chosen = random.Random(0).sample(range(10), 5)
    assert [row["media"] for row in rows][:5] == [[f"pictures/{n}.jpg"] for n in chosen]
    assert rows["type"] == ["image_text"] * 5 + ["text"] * 4 + ["image_text"]
    learned = [byte_level.decode([label for label in row["labels"] if label != -100]) for row in rows]
    assert learned[0] == f" {chosen[0]}\n###"
    assert learned[-1] == " a cat, asleep\n###"  # a csv file is separated by tabs
    assert rows["characters"][5] == len(SINGLE[0]["instruction"] + SINGLE[0]["output"])


def test_settings_of_the_list_go_to_its_files(listed):
    (first, *_) = expand_sources([SourceConfig(path=str(listed), rows=":3", media_name="{id}.jpg")])
    assert (first.rows, first.media_name, first.type) == (":3", "{id}.jpg", "image_text")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("META: []", "has no list META"),
        ("other: 1", "has no list META"),
        ("META: [3]", "entry 1 .* is 3"),
        ("META: [{path: a.json, colour: red}]", r"has \['colour'\]"),
        ("META: [{path: a.json, preprocess: x}]", "preprocess 'x'"),
        ("META: [{path: a.json, prompt_type: qg}]", "prompt_type 'qg'"),
        ("META: [", "cannot be read"),
    ],
)
def test_what_is_no_list_is_named(write, text, message):
    with pytest.raises(UserError, match=message):
        expand_sources([SourceConfig(path=str(write("meta.yml", text)))])


def test_a_weight_cannot_be_divided(listed):
    with pytest.raises(UserError, match="lists 3 files"):
        expand_sources([SourceConfig(path=str(listed), weight=1.0)])
