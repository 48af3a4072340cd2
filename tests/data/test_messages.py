"""Messages with all they may say of themselves: parts, loss marks, thoughts, calls."""

import json

import pytest

from llama_adapter.data.fields import Parsed
from llama_adapter.data.messages import SHAREGPT, message_turns
from llama_adapter.data.records import RecordProblem, Turn
from llama_adapter.data.tools import calls_of, tools_of
from llama_adapter.media import MediaItem

CALL = {"type": "function", "function": {"name": "look", "arguments": {"city": "Rome"}}}
FLAT = {"name": "look", "arguments": '{"city": "Rome"}'}


def user(**more):
    return {"role": "user", "content": "q", **more}


def said(**more):
    return {"role": "assistant", "content": "a", **more}


def test_messages_may_have_parts_and_media_inside():
    content = [
        {"type": "image_url", "image_url": {"url": "a.png", "detail": "low"}},
        {"type": "text", "text": "What?", "cache": 1},
        {"type": "input_audio", "path": "b.wav"},
        {"type": "image", "image": None, "text": None},
    ]
    parsed = message_turns([user(content=content), said()])
    assert parsed.turns == [Turn("user", "<image>What?<audio><image>"), Turn("assistant", "a")]
    assert parsed.media == [
        MediaItem("image", "a.png"),
        MediaItem("audio", "b.wav"),
        MediaItem("image", None),
    ]
    assert parsed.unread == ["messages.content.cache"]


def test_an_unknown_message_part_is_a_problem():
    with pytest.raises(RecordProblem, match="type 'file'; it must be text, image, audio or video"):
        message_turns([user(content=[{"type": "file", "path": "a.pdf"}])])
    with pytest.raises(RecordProblem, match="the key 'type' is missing"):
        message_turns([user(content=[{"text": "q"}])])


@pytest.mark.parametrize("key", ["weight", "loss", "train", "training", "loss_weight"])
@pytest.mark.parametrize("value", [0, 0.0, False])
def test_a_message_may_say_that_it_bears_no_loss(key, value):
    rows = [user(), said(**{key: value}), user(**{key: value}), said(**{key: 1}), said(**{key: None}), said()]
    learned = [turn.learned for turn in message_turns(rows).turns if turn.role == "assistant"]
    assert learned == [False, True, True, True]
    talk = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a", key: value}]
    assert [turn.learned for turn in message_turns(talk, SHAREGPT).turns] == [True, False]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (said(weight=0.5), "has weight 0.5; it must be true or false"),
        (said(weight=2), "has weight 2"),
        (said(weight=float("nan")), "has weight nan"),
        (said(train="false"), "has train 'false'"),
        (said(loss=[]), r"has loss \[\]"),
        (said(loss=True, weight=0), "which contradict each other"),
        (user(train=True), "of the role 'user' has {'train': True}; only answers are learned"),
        (said(train_detail=[{"begin_offset": 0}]), "has the key 'train_detail', which is not supported"),
        (said(prefix=True), "has the key 'prefix'"),
        (user(tool_calls=[CALL]), "of the role 'user' calls functions"),
        (user(thinking="hm"), "of the role 'user' has thoughts"),
        (said(reasoning="x", thinking="y"), "'reasoning' and 'thinking' differ"),
        (said(reasoning_content=["x"]), "'reasoning_content' is list"),
        (said(tool_calls="look"), "'tool_calls' is 'look'; it must be a list of objects"),
        (said(tool_calls=[{"function": {}}]), "a call must have a name"),
        (said(tool_calls=[{"name": "f", "arguments": "x"}]), "the arguments of 'f' are 'x'; they must be"),
        (said(tool_calls=[{"name": "f", "arguments": [1]}]), "the arguments of 'f' are"),
        ({"role": "critic", "content": "x"}, "unknown role 'critic'; use one of: system, developer, user"),
        ({"role": "human", "content": "x"}, "unknown role 'human'"),
        ({"role": "assistant", "content": None}, "'content' is NoneType"),
        ({"role": "assistant"}, "the key 'content' is missing"),
    ],
)
def test_messages_that_cannot_be_read(message, reason):
    with pytest.raises(RecordProblem, match=reason):
        message_turns([message])


def test_thoughts_by_every_name():
    content = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "a"}]
    for message in (
        said(reasoning_content="hm"),
        said(reasoning="hm"),
        said(thinking="hm", reasoning="hm"),
        said(content=content),
    ):
        assert message_turns([message]).turns == [Turn("assistant", "a", reasoning="hm")]


def test_calls_and_what_functions_answer():
    rows = [
        {"role": "assistant", "content": None, "tool_calls": [{**CALL, "id": "1"}]},
        {"role": "tool", "content": "sun", "tool_call_id": "1", "name": "look"},
        {"role": "assistant", "function_call": FLAT},
        {"role": "function", "content": "rain", "name": "look"},
        said(name="bot", tool_calls=None),
    ]
    parsed = message_turns(rows)
    assert parsed.turns == [
        Turn("assistant", "", tool_calls=[{**CALL, "id": "1"}]),
        Turn("tool", "sun", tool_call_id="1", name="look"),
        Turn("assistant", "", tool_calls=[CALL]),
        Turn("tool", "rain", name="look"),
        Turn("assistant", "a"),
    ]
    assert parsed.unread == ["messages.name"]


def test_llama_factorys_roles_of_functions():
    rows = [
        {"from": "human", "value": "weather?"},
        {"from": "function_call", "value": json.dumps(FLAT)},
        {"from": "observation", "value": "sun"},
        {"from": "gpt", "value": "Sunny."},
    ]
    turns = message_turns(rows, SHAREGPT).turns
    assert [turn.role for turn in turns] == ["user", "assistant", "tool", "assistant"]
    assert turns[1] == Turn("assistant", "", tool_calls=[CALL])
    with pytest.raises(RecordProblem, match="'function_call' is 'not json'"):
        message_turns([{"from": "function_call", "value": "not json"}], SHAREGPT)


def test_functions_of_a_record():
    tool = {"type": "function", "function": {"name": "look"}}
    assert tools_of({"tools": [tool]}) == tools_of({"tools": json.dumps([tool])}) == [tool]
    assert tools_of({"functions": [{"name": "look"}]}) == [tool]
    assert tools_of({"tools": ""}) == tools_of({}) == calls_of({"tool_calls": []}) == []
    for tools in ("[", "3", [1], 3):
        with pytest.raises(RecordProblem, match="'tools' is .* must be a list of objects or its JSON"):
            tools_of({"tools": tools})


def test_no_messages_are_none():
    assert message_turns([]) == Parsed()
