"""Prompt files: what is read, and what is said about a bad line."""

import json

import pytest

from llama_adapter.data import Turn
from llama_adapter.errors import UserError
from llama_adapter.generation.prompts import read_prompts, unread_line


@pytest.fixture
def read(tmp_path):
    def write_and_read(name, text, system=None):
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_prompts(tmp_path / name, system)

    return write_and_read


def test_text_file_is_one_prompt_per_line(read, tmp_path):
    prompts = read("q.txt", "first\n\n  second \n")
    assert [prompt.turns for prompt in prompts] == [[Turn("user", "first")], [Turn("user", "  second ")]]
    assert [prompt.place for prompt in prompts] == [f"{tmp_path}/q.txt:1", f"{tmp_path}/q.txt:3"]


def test_records_of_every_kind(read):
    rows = [
        {"prompt": "p"},
        {"instruction": "i", "input": "c", "output": "o"},
        {"instruction": "i", "input": None},
        {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]},
        "bare",
    ]
    wanted = [
        [Turn("user", "p")],
        [Turn("user", "i", "c")],
        [Turn("user", "i")],
        [Turn("system", "s"), Turn("user", "u")],
        [Turn("user", "bare")],
    ]
    lines = "\n".join(json.dumps(row) for row in rows)
    assert [prompt.turns for prompt in read("q.jsonl", lines)] == wanted
    assert [prompt.turns for prompt in read("q.json", json.dumps(rows))] == wanted


def test_answers_at_the_end_are_left_out_but_history_stays(read):
    messages = [{"role": role, "content": role[0]} for role in ("user", "assistant", "user", "assistant")]
    (prompt,) = read("q.jsonl", json.dumps({"messages": messages}))
    assert prompt.turns == [Turn("user", "u"), Turn("assistant", "a"), Turn("user", "u")]


def test_a_unicode_line_separator_inside_a_record_is_no_new_line(read):
    (prompt,) = read("q.jsonl", '{"prompt": "a\u2028b"}\n')
    assert prompt.turns == [Turn("user", "a\u2028b")]


def test_system_message_is_added_where_there_is_none(read):
    own = json.dumps({"messages": [{"role": "system", "content": "own"}, {"role": "user", "content": "u"}]})
    first, second = read("q.jsonl", f'{{"prompt": "p"}}\n{own}\n', system="be kind")
    assert first.turns[0] == Turn("system", "be kind")
    assert [turn.text for turn in second.turns] == ["own", "u"]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("q.jsonl", '{"prompt": "a"}\n{"prompt": \n', "q.jsonl:2: invalid JSON: Expecting value"),
        ("q.jsonl", '{"query": "a"}\n', r"q.jsonl:1: .* has no prompt of a known format; llava"),
        ("q.jsonl", "3\n", r"q.jsonl:1: the record is int \('3'\), not an object"),
        ("q.jsonl", '{"prompt": 3}\n', r"'prompt' is int \('3'\); it must be text"),
        ("q.jsonl", '{"instruction": "a", "input": ["b"]}\n', "'input' is list"),
        (
            "q.jsonl",
            '{"messages": [{"role": "assistant", "content": "a"}]}\n',
            "no question; add a user's turn",
        ),
        ("q.jsonl", '{"messages": 3}\n', "must be a list of objects"),
        ("q.jsonl", '{"messages": [{"role": "user"}]}\n', "the key 'content' is missing"),
        (
            "q.jsonl",
            '{"prompt": "a", "id": [1]}\n',
            r"q.jsonl:1: the id \[1\] names no record; it must be a text",
        ),
        ("q.txt", "\n \n", "holds no prompts"),
        ("q.txt", b"caf\xe9", "must be UTF-8, but has the byte 0xe9 at character 3"),
    ],
)
def test_a_bad_file_is_named_with_its_line(read, name, text, said):
    with pytest.raises(UserError, match=said):
        read(name, text)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none.txt: No such file or directory. Provide a file"):
        read_prompts(tmp_path / "none.txt")


def test_lines_end_with_a_line_feed_and_a_byte_order_mark_is_none_of_the_text(read):
    text = "\ufeffName a colour.\r\nfirst\u2028half\x0cand\x85more\x1c\n\rlast"
    wanted = ["Name a colour.", "first\u2028half\x0cand\x85more\x1c", "\rlast"]
    assert [prompt.turns[0].text for prompt in read("q.txt", text)] == wanted
    rows = "\ufeff" + "\n".join(json.dumps({"prompt": one}) for one in wanted)
    assert [prompt.turns[0].text for prompt in read("q.jsonl", rows)] == wanted


def test_tables_are_prompt_files_too(read):
    for name, text in (("q.csv", 'prompt,id\n"a, b",7\n'), ("q.tsv", "prompt\tid\na, b\t7\n")):
        (prompt,) = read(name, text)
        assert (prompt.turns, prompt.id) == ([Turn("user", "a, b")], "7")


PARTS = [{"type": "image", "path": "a.jpg"}, {"type": "text", "text": "Say"}]


@pytest.mark.parametrize(
    ("row", "shown"),
    [
        ({"prompt": "Say", "audio": "a.wav"}, "audio {}/a.wav"),
        ({"messages": [{"role": "user", "content": "<audio>Say"}], "audios": ["a.wav"]}, "audio {}/a.wav"),
        ({"prompt": "Say", "image_path": "a.jpg"}, "{}/a.jpg"),
        ({"prompt": "Say", "inputs": {"audio": "a.wav:-1", "text": "x"}}, "text x + audio {}/a.wav x -1"),
        ({"messages": [{"role": "user", "content": PARTS}]}, "{}/a.jpg"),
        ({"prompt": "Say", "point_cloud": "a.ply"}, "point {}/a.ply"),
    ],
)
def test_media_are_shown_by_whatever_name_they_come(read, tmp_path, row, shown):
    for name in ("a.wav", "a.jpg", "a.ply"):
        (tmp_path / name).touch()
    (prompt,) = read("q.jsonl", json.dumps(row))
    assert str(prompt.image).replace("'", "") == shown.format(tmp_path)
    assert prompt.turns[0].text in ("Say", "<image>Say")


def test_a_medium_inside_of_a_record_is_shown(read, monkeypatch, tmp_path):
    monkeypatch.setattr("llama_adapter.generation.prompts.KEPT_MEDIA", tmp_path / "kept")
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    (prompt,) = read("q.jsonl", json.dumps({"messages": [{"role": "user", "content": [part]}]}))
    assert prompt.image.endswith(".png")
    assert (tmp_path / "kept" / prompt.image).read_bytes() == b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "Say", "image": "none.jpg"}, "q.jsonl:1: The image .*none.jpg' does not exist"),
        ({"prompt": "<image>Say"}, "q.jsonl:1: <image> occurs 1 times, but the record names no image"),
        (
            {"prompt": "Say", "chosen": "a", "rejected": "b"},
            "q.jsonl:1: the key 'chosen' is of preference data",
        ),
        ({"messages": [{"role": "human", "content": "x"}]}, "q.jsonl:1: turn 1 has the unknown role 'human'"),
    ],
)
def test_what_cannot_be_asked_is_named_with_its_line(read, row, said):
    with pytest.raises(UserError, match=said):
        read("q.jsonl", json.dumps(row))


def test_keys_that_are_not_read_are_counted(read):
    rows = [{"prompt": "p", "topic": "x", "id": 1, "adapter": "a"}, {"prompt": "p", "topic": "y", "mood": 1}]
    prompts = read("q.jsonl", "\n".join(map(json.dumps, rows)))
    assert unread_line(prompts) == "not read: mood (1 records), topic (2 records)"
    assert unread_line(prompts[:0]) == ""
