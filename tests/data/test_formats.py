import pytest

from llama_adapter.data.fields import Parsed
from llama_adapter.data.formats import (
    FORMATS,
    detect_format,
    named_format,
    register_format,
)
from llama_adapter.data.reading import Habits, read_record, rename
from llama_adapter.data.records import RawRow, RecordProblem, Turn
from llama_adapter.errors import UserError
from llama_adapter.media import MediaItem


def read(name, row, columns=None):
    return read_record(named_format(name), RawRow("f:1", row), Habits(tuple((columns or {}).items())))


def pairs(record):
    return [(turn.role, turn.full_text) for turn in record.turns]


@pytest.mark.parametrize(
    ("columns", "name"),
    [
        (["instruction", "input", "output"], "alpaca"),
        (["conversations", "id"], "sharegpt"),
        (["conversations", "image"], "llava"),
        (["messages"], "messages"),
        (["prompt", "completion"], "prompt_completion"),
        (["caption", "url"], "captions"),
        (["caption", "image"], "captions"),
    ],
)
def test_formats_are_found_by_their_columns(columns, name):
    assert detect_format(columns, "f").name == name


def test_unknown_columns_are_named_with_the_known_formats():
    with pytest.raises(
        UserError, match=r"'f.csv' has the columns answer, question, which is no known format"
    ) as error:
        detect_format(["question", "answer"], "'f.csv'")
    assert "Set columns to say which is which" in str(error.value)
    assert all(name in str(error.value) for name in FORMATS)


def test_a_misspelt_format_gets_a_hint():
    with pytest.raises(
        UserError, match=r"format is 'alpacca'. Did you mean 'alpaca'\? Use auto or one of: llava"
    ):
        named_format("alpacca")


def test_alpaca_keeps_the_input_apart_and_takes_system_and_history():
    record = read("alpaca", {"instruction": "Add.", "input": "2 3", "output": "5"})
    assert record.turns == [Turn("user", "Add.", "2 3"), Turn("assistant", "5")]
    row = {"system": "S", "history": [["q", "a"]], "instruction": "i", "output": "o"}
    assert pairs(read("alpaca", row)) == [
        ("system", "S"),
        ("user", "q"),
        ("assistant", "a"),
        ("user", "i"),
        ("assistant", "o"),
    ]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"instruction": "  ", "output": "x"}, "'instruction' is empty"),
        ({"instruction": "x"}, "the key 'output' is missing"),
        ({"instruction": "x", "output": ""}, "the answer in turn 2 is empty"),
        (
            {"instruction": "x", "output": "y", "history": ["q", "a"]},
            "must hold pairs of question and answer",
        ),
    ],
)
def test_alpaca_rows_that_cannot_be_used(row, reason):
    with pytest.raises(RecordProblem, match=reason):
        read("alpaca", row)


def test_sharegpt_roles_and_the_system_column():
    row = {
        "system": "S",
        "conversations": [
            {"from": "human", "value": "q"},
            {"from": "gpt", "value": "a"},
            {"from": "user", "value": "q2"},
            {"from": "chatgpt", "value": "a2"},
        ],
    }
    assert [turn.role for turn in read("sharegpt", row).turns] == [
        "system",
        "user",
        "assistant",
        "user",
        "assistant",
    ]


def test_sharegpt_with_role_and_content():
    row = {"conversations": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
    assert pairs(read("sharegpt", row)) == [("user", "q"), ("assistant", "a")]


@pytest.mark.parametrize(
    ("conversations", "reason"),
    [
        ([{"from": "human", "value": "q"}, {"from": "critic", "value": "a"}], "unknown role 'critic'"),
        ([{"from": "human", "value": "q"}, {"from": "gpt"}], "the key 'value' is missing"),
        ([{"from": "human", "value": "q"}, {"from": "gpt", "value": 3}], "'value' is int"),
        ("text", "must be a list of objects"),
        ([], "there must be an assistant turn"),
    ],
)
def test_sharegpt_rows_that_cannot_be_used(conversations, reason):
    with pytest.raises(RecordProblem, match=reason):
        read("sharegpt", {"conversations": conversations})


def test_llava_keeps_the_image_and_its_placeholder():
    talk = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A cat."}]
    record = read("llava", {"image": "cat.jpg", "conversations": talk})
    assert record.media == [MediaItem("image", "cat.jpg")]
    assert record.turns[0].text == "<image>\nWhat is it?"
    assert read("llava", {"conversations": [{"from": "human", "value": "q"}, talk[1]]}).media == []


def test_prompt_and_completion_may_be_messages():
    assert pairs(read("prompt_completion", {"prompt": "", "completion": "c"})) == [
        ("user", ""),
        ("assistant", "c"),
    ]
    row = {
        "prompt": [{"role": "user", "content": "q"}],
        "completion": [{"role": "assistant", "content": "a"}],
    }
    assert pairs(read("prompt_completion", row)) == [("user", "q"), ("assistant", "a")]


def test_captions_use_the_published_instruction_and_choose_the_same_caption_every_time():
    record = read("captions", {"caption": "a red square", "url": "red.png"})
    assert pairs(record) == [("user", "Generate caption of this image"), ("assistant", "a red square")]
    assert record.media == [MediaItem("image", "red.png")]
    row = {"caption": ["one", "two", "three"], "image": "x.png"}
    form = named_format("captions")
    chosen = [read_record(form, RawRow(f"f:{line}", row)).turns[1].text for line in range(40)]
    assert set(chosen) == {"one", "two", "three"}
    assert chosen == [read_record(form, RawRow(f"f:{line}", row)).turns[1].text for line in range(40)]


def test_columns_can_be_named_otherwise():
    row = {"question": "q", "answer": "a", "input": "kept"}
    record = read("alpaca", row, {"instruction": "question", "output": "answer"})
    assert record.turns == [Turn("user", "q", "kept"), Turn("assistant", "a")]
    assert rename({"input": "x"}, [("instruction", "input")]) == {"instruction": "x"}


def test_a_new_format_is_one_decorated_function(monkeypatch):
    monkeypatch.setattr("llama_adapter.data.formats.FORMATS", dict(FORMATS))

    @register_format("qa", "q", "a|answer")
    def read_qa(row, record_id):
        return Parsed([Turn("user", row["q"]), Turn("assistant", row.get("a") or row["answer"])])

    found = detect_format({"q", "answer"}, "f")
    assert found.name == "qa"
    assert pairs(read_record(found, RawRow("f:1", {"q": "1", "answer": "2"}))) == [
        ("user", "1"),
        ("assistant", "2"),
    ]


def test_vqa_learns_what_most_people_said():
    row = {
        "question": "What?",
        "answers": [{"answer": "a cat"}, {"answer": "cat"}, {"answer": "cat"}],
        "image": "x.png",
    }
    read = FORMATS["vqa"].read
    assert [turn.text for turn in read(row, "r").turns] == ["What?", "cat"]
    assert read(row | {"multiple_choice_answer": "cats"}, "r").turns[1].text == "cats"
    assert read(row | {"answers": ["b", "a", "a"]}, "r").turns[1].text == "a"
    for answers in ([], [3], [{"text": "a"}], [" "]):
        with pytest.raises(RecordProblem, match="'answers' holds"):
            read(row | {"answers": answers}, "r")
