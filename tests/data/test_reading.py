"""One way from a row to a record: what is honoured, what is refused, what is named as not read."""

import pytest

from llama_adapter.data.formats import detect_format, named_format
from llama_adapter.data.reading import Habits, read_question, read_record, without_marks
from llama_adapter.data.records import RawRow, RecordProblem, Turn
from llama_adapter.errors import UserError
from llama_adapter.media import MediaItem

TALK = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
ASKED, SAID = Turn("user", "q"), Turn("assistant", "a")
JPG = MediaItem("image", "a.jpg")


def learn(row, **habits):
    return read_record(detect_format(row, "f"), RawRow("f:1", row), Habits(**habits))


def ask(row, **habits):
    return read_question(RawRow("f:1", row), Habits(**habits))


@pytest.mark.parametrize("key", ["system", "system_prompt", "developer"])
@pytest.mark.parametrize(
    "row",
    [
        {"messages": TALK},
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
        {"instruction": "q", "output": "a"},
        {"prompt": "q", "completion": "a"},
        {"prompt": TALK[:1], "completion": TALK[1:]},
        {"question": "q", "answers": ["a"]},
    ],
)
def test_a_system_text_beside_any_conversation(row, key):
    row = {**row, key: "Be terse.", "history": [["before", "then"]]}
    earlier = [Turn("system", "Be terse."), Turn("user", "before"), Turn("assistant", "then")]
    assert learn(row).turns == [*earlier, ASKED, SAID]
    assert ask(row).turns == [*earlier, ASKED]
    assert learn(row).unread == []


def test_a_system_text_in_both_places_must_be_the_same():
    own = [{"role": "system", "content": "s"}, *TALK]
    assert learn({"messages": own, "system": "s"}).turns == [Turn("system", "s"), ASKED, SAID]
    earlier = learn({"messages": own, "history": [["x", "y"]]}).turns
    assert [turn.text for turn in earlier] == ["s", "x", "y", "q", "a"]
    with pytest.raises(RecordProblem, match="a system text beside its messages and another among them"):
        learn({"messages": own, "system": "other"})
    with pytest.raises(RecordProblem, match="the record has 2 system texts"):
        learn({"messages": TALK, "system": "s", "system_prompt": "t"})


@pytest.mark.parametrize("history", [[["q"]], ["q", "a"], "q", [["q", 3]], [3], {"q": "a"}])
def test_a_history_that_is_none(history):
    with pytest.raises(RecordProblem, match="'history' holds .* pairs of question and answer"):
        learn({"instruction": "i", "output": "o", "history": history})


def test_a_history_may_be_messages():
    assert ask({"prompt": "p", "history": TALK}).turns == [ASKED, SAID, Turn("user", "p")]


@pytest.mark.parametrize("thoughts", ["reasoning_content", "reasoning", "thinking"])
def test_thoughts_beside_an_answer_belong_to_it(thoughts):
    for row in ({"instruction": "q", "output": "a"}, {"messages": TALK}, {"prompt": "q", "completion": "a"}):
        assert learn({**row, thoughts: "hm"}).turns[-1].reasoning == "hm"
        assert ask({**row, thoughts: "hm"}).turns == [ASKED]
    with pytest.raises(RecordProblem, match="thoughts stand beside several answers"):
        learn({"messages": [*TALK, *TALK], thoughts: "hm"})
    with pytest.raises(RecordProblem, match="is bool"):
        learn({"messages": TALK, thoughts: True})


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", "chosen": "a", "rejected": "b"},
        {"chosen": TALK, "rejected": TALK},
        {"messages": TALK, "chosen": TALK, "rejected": TALK},
        {
            "conversations": [],
            "chosen": {"from": "gpt", "value": "4"},
            "rejected": {"from": "gpt", "value": "5"},
        },
        {"messages": TALK, "label": False},
        {"messages": TALK, "label": "True"},
        {"prompt": "q", "completion": "a", "label": True},
        {"instruction": "q", "output": "a", "kto_tag": True},
        {"instruction": "q", "output": "a", "rejected_response": "b"},
        {"prompt": "q", "completion": "a", "score_chosen": 3.5},
        {"prompt": "q", "responses": ["a", "b"], "ranks": [1, 2]},
        {"prompt": "q", "completions": ["a", "b"], "labels": [True, False]},
        {"input": {"messages": TALK}, "preferred_output": TALK, "non_preferred_output": TALK},
        {"prompt": "q", "response_0": "a", "response_1": "b", "better_response_id": 0},
        {"conversation_a": TALK, "conversation_b": TALK, "winner": "model_a"},
    ],
)
def test_preference_data_are_refused_in_every_layout(row):
    with pytest.raises((RecordProblem, UserError), match=r"of preference data.*TRL's DPOTrainer"):
        learn(row)
    with pytest.raises((RecordProblem, UserError), match=r"of preference data.*TRL's DPOTrainer"):
        ask(row)


def test_a_label_that_names_a_class_is_none_and_what_is_ignored_is_let_pass():
    assert learn({"messages": TALK, "label": "sports", "rank": 3}).unread == ["label", "rank"]
    assert learn({"messages": TALK, "label": 1}, ignore=("label",)).unread == []
    row = {"question": "q", "label": "1"}
    columns = (("instruction", "question"), ("output", "label"))
    record = read_record(named_format("alpaca"), RawRow("f:1", row), Habits(columns))
    assert record.turns == [ASKED, Turn("assistant", "1")]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("context", "Rome is in Italy."),
        ("documents", [{"text": "x"}]),
        ("weight", 0.5),
        ("loss", False),
        ("train", False),
        ("mask", "User"),
        ("tool_calls", [{"name": "f"}]),
    ],
)
def test_a_key_that_would_change_the_meaning_is_refused_by_name(key, value):
    row = {"messages": TALK, key: value}
    with pytest.raises(
        RecordProblem, match=rf"the key '{key}' holds .*rename it with columns, or name it under"
    ):
        learn(row)
    assert learn(row, ignore=(key,)).turns == [ASKED, SAID]
    assert learn({"messages": TALK, key: None}).unread == []


def test_all_other_keys_are_named_once_each():
    row = {
        "messages": [{**TALK[0], "created_by": "me"}, {**TALK[1], "created_by": "it", "score": 3}],
        "topic": "x",
        "id": 7,
        "source": "web",
        "metadata": {"a": 1},
        "empty": None,
        "prompt": "q",
    }
    assert learn(row).unread == ["messages.created_by", "messages.score", "topic"]
    assert ask(row).unread == ["messages.created_by", "messages.score", "topic"]
    assert learn(row, ignore=("topic", "messages.score")).unread == ["messages.created_by"]


def test_a_question_alone_can_be_asked_and_is_no_training_data():
    for row in ({"prompt": "q"}, {"prompt": TALK[:1]}, {"instruction": "q"}, {"question": "q"}):
        assert ask(row).turns == [ASKED]
        with pytest.raises(UserError, match=r"no answers to learn: \w+ is missing"):
            learn(row)
    with pytest.raises(RecordProblem, match=r"'completion' is missing; it must be there to learn from"):
        read_record(named_format("prompt_completion"), RawRow("f:1", {"prompt": "q"}))
    with pytest.raises(RecordProblem, match=r"'output' is empty \(null\)"):
        read_record(named_format("alpaca"), RawRow("f:1", {"instruction": "q", "output": None}))
    science = {"question": "Which?", "choices": ["a", "b"]}
    assert ask(science).turns == ask({**science, "answer": 1}).turns
    with pytest.raises(RecordProblem, match="'answer' is missing"):
        read_record(named_format("scienceqa"), RawRow("f:1", science))


def test_what_is_asked_ends_before_the_last_answers():
    long = [*TALK, {"role": "user", "content": "more"}]
    assert ask({"messages": long}).turns == [ASKED, SAID, Turn("user", "more")]
    assert ask({"messages": [*long, *TALK[1:], *TALK[1:]]}).turns == [ASKED, SAID, Turn("user", "more")]
    with pytest.raises(RecordProblem, match=r"there is no question; add a user's turn \(found: assistant\)"):
        ask({"messages": TALK[1:]})


ONE = {"type": "image", "path": "a.jpg"}
TEXT = {"type": "text", "text": "q"}


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "user", "content": [ONE, TEXT]}]},
        {"messages": [{"role": "user", "content": [{"type": "image", "url": "a.jpg"}, TEXT]}]},
        {"messages": [{"role": "user", "content": [{"type": "image"}, TEXT]}], "images": ["a.jpg"]},
        {"messages": [{"role": "user", "content": "<image>q"}], "image_path": "a.jpg"},
        {"messages": [{"role": "user", "content": "<image>q", "images": ["a.jpg"]}]},
        {"prompt": "<image>q", "img": "a.jpg"},
        {"instruction": "<image>q", "file_name": "a.jpg"},
        {"question": "<image>q", "image_id": 3},
        {"conversations": [{"from": "human", "value": "<image>q"}], "screenshot": "a.jpg"},
    ],
)
def test_an_image_by_any_name_at_its_mark(row):
    habits = {"media_name": "a.jpg"} if "image_id" in row else {}
    habits |= {"columns": (("image", "screenshot"),)} if "screenshot" in row else {}
    record = ask(row, **habits)
    assert (record.turns, record.media, record.unread) == ([Turn("user", "<image>q")], [JPG], [])


def test_media_take_the_places_of_their_marks():
    parts = [{"type": "image"}, {"type": "text", "text": " or "}, {"type": "image", "path": "2.jpg"}]
    row = {
        "messages": [{"role": "user", "content": [*parts, {"type": "audio"}]}],
        "image": "1.jpg",
        "audio": "s.wav",
    }
    assert ask(row).media == [
        MediaItem("image", "1.jpg"),
        MediaItem("image", "2.jpg"),
        MediaItem("audio", "s.wav"),
    ]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "<image>q"}, "<image> occurs 1 times, but the record names no image; it must name one"),
        ({"prompt": "<image>q", "pic": "a.jpg"}, "names no image"),
        ({"prompt": "<audio>q", "image": "a.jpg"}, "<audio> occurs 1 times, but the record names no audio"),
        (
            {"prompt": "<image>", "images": ["a", "b"]},
            "names 2 of the kind image, but <image> occurs 1 times",
        ),
        ({"prompt": "<image><image>", "images": ["a"]}, "names 1 of the kind image, but <image> occurs 2"),
        ({"prompt": "q<video>", "videos": ["a.mp4", "b.mp4"]}, "names 2 of the kind video"),
        ({"messages": [{"role": "user", "content": [ONE]}], "image": "b.jpg"}, "names 2 of the kind image"),
        ({"messages": [{"role": "user", "content": "q", "images": ["b.jpg"]}]}, "has no mark for it"),
        ({"messages": [{"role": "user", "content": [{"type": "depth"}]}]}, "names no depth"),
        ({"prompt": "q", "image": 7}, "'image' holds int"),
    ],
)
def test_marks_and_media_must_agree(row, said):
    with pytest.raises(RecordProblem, match=said):
        ask(row)


def test_marks_may_be_words():
    row = {"instruction": "What does <image> do in <video>?", "output": "It shows <image>."}
    assert learn(row, marks="text").turns[0].text == row["instruction"]
    assert learn(row, marks="text").media == []
    with pytest.raises(RecordProblem, match="names 1 of the kind image, but <image> occurs 2 times"):
        learn({**row, "image": "a.jpg"}, marks="text")


def test_media_of_turns_that_are_left_out_go_with_them():
    later = [{"role": "user", "content": "<image>again"}]
    row = {
        "messages": [{"role": "user", "content": "<image>q"}, TALK[1], *later],
        "images": ["a.jpg", "b.jpg"],
    }
    assert learn(row).media == [JPG]
    assert [item.content for item in ask(row).media] == ["a.jpg", "b.jpg"]
    asked = {"messages": [{"role": "user", "content": "q"}, TALK[1], *later, TALK[1]], "image": "a.jpg"}
    assert ask(asked).media == learn(asked).media == [JPG]


def test_marks_leave_with_their_line_break():
    turn = Turn("user", "<video>\nq <image>", "<audio>c\n<video>")
    assert without_marks(turn, {"audio", "video"}) == Turn("user", "q <image>", "c")
    assert without_marks(turn, {"point"}) is turn
