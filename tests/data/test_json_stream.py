import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llama_adapter.data import json_stream
from llama_adapter.data.json_stream import read_json, read_json_lines

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)
RECORDS = st.lists(st.dictionaries(st.text("key", max_size=4), VALUES, max_size=4), max_size=6)


def rows_of(rows):
    return [(row.record_id, row.row) for row in rows if not row.problem]


def problems_of(rows):
    return [(row.record_id, row.problem) for row in rows if row.problem]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(
    records=RECORDS, chunk=st.integers(1, 40), indent=st.sampled_from([None, 0, 2]), ascii_only=st.booleans()
)
def test_an_array_is_read_in_pieces_of_any_size(records, chunk, indent, ascii_only, tmp_path, monkeypatch):
    monkeypatch.setattr(json_stream, "CHUNK", chunk)
    path = tmp_path / "a.json"
    path.write_text(json.dumps(records, indent=indent, ensure_ascii=ascii_only), encoding="utf-8")
    assert [row.row for row in read_json(path, "a.json")] == records


def test_an_array_gives_the_line_each_record_starts_on(write):
    path = write("a.json", '\n[ {"a":\n 1},\n\n {"a": 2}, {"a": 3}\n]\n')
    assert rows_of(read_json(path, "a.json")) == [
        ("a.json:2", {"a": 1}),
        ("a.json:5", {"a": 2}),
        ("a.json:5", {"a": 3}),
    ]


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ('[{"a": 1},\n{"a": tru},\n{"a": 3}]', 2, "Expecting value (line 2)"),
        ('[{"a": 1},\n{"a":\n "x}]', 2, "Unterminated string starting at (line 3)"),
        ('[{"a": 1}\n{"a": 2}]', 2, "expected ',' or ']' after a record, found '{'"),
        ('[{"a": 1},\n', 2, "Expecting value"),
        ('[{"a": 1}] x', 1, "'x' after the array"),
        ("[" + "[" * 100_000, 1, "nested too deeply"),
    ],
)
def test_broken_arrays_keep_what_came_before_and_say_where(write, text, line, reason):
    found = problems_of(read_json(write("a.json", text), "a.json"))
    assert [place for place, _ in found] == [f"a.json:{line}"]
    assert reason in found[0][1]
    assert "what follows in this file cannot be read" in found[0][1]


def test_a_broken_record_is_noticed_without_reading_the_rest(write, monkeypatch):
    monkeypatch.setattr(json_stream, "CHUNK", 64)
    path = write("a.json", '[{"a": nope},' + '{"b": 1},' * 20_000 + '{"b": 1}]')
    reads = []
    fill = json_stream._Window.fill
    monkeypatch.setattr(json_stream._Window, "fill", lambda self: (reads.append(1), fill(self))[1])
    assert len(problems_of(read_json(path, "a.json"))) == 1
    assert len(reads) < 5


def test_memory_stays_bounded_while_an_array_is_read(write, monkeypatch):
    monkeypatch.setattr(json_stream, "CHUNK", 1000)
    path = write("a.json", [{"text": "x" * 50} for _ in range(2000)])
    widest = []
    fill = json_stream._Window.fill
    monkeypatch.setattr(
        json_stream._Window, "fill", lambda self: (fill(self), widest.append(len(self.text)))[0]
    )
    assert len(list(read_json(path, "a.json"))) == 2000
    assert max(widest) < 3000


def test_lines_are_independent_of_each_other(write):
    path = write("a.jsonl", '{"a": 1}\n\n{"a": \n[1, 2]\n{"a": 1, "a": 2}\n{"a": 3}')
    rows = list(read_json_lines(path, "a.jsonl"))
    assert rows_of(rows) == [("a.jsonl:1", {"a": 1}), ("a.jsonl:6", {"a": 3})]
    assert problems_of(rows) == [
        ("a.jsonl:3", "invalid JSON: Expecting value at column 7"),
        ("a.jsonl:4", "the record is list ('[1, 2]'), not an object"),
        ("a.jsonl:5", "the key 'a' occurs twice"),
    ]


def test_deep_nesting_is_a_problem_of_its_line_only(write):
    path = write("a.jsonl", "[" * 200_000 + '\n{"a": 1}\n')
    rows = list(read_json_lines(path, "a.jsonl"))
    assert problems_of(rows) == [("a.jsonl:1", "invalid JSON: nested too deeply; use a flat record")]
    assert rows_of(rows) == [("a.jsonl:2", {"a": 1})]


@pytest.mark.parametrize("content", ['{"a": 1}\n{"a": 2}\n', '\ufeff{"a": 1}\r\n{"a": 2}\r\n'])
def test_lines_under_the_json_suffix_and_byte_order_marks(write, content):
    assert [row.row for row in read_json(write("a.json", content), "a.json")] == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize("content", ["", "  \n \n"])
def test_an_empty_file_has_no_rows(write, content):
    assert list(read_json(write("a.json", content), "a")) == []
    assert list(read_json_lines(write("a.jsonl", content), "a")) == []


def test_a_line_separator_inside_a_text_does_not_end_the_line(write):
    path = write("a.jsonl", '{"a": "x\u2028y\u0085z"}\n{"a": 2}')
    assert rows_of(read_json_lines(path, "a")) == [("a:1", {"a": "x\u2028y\u0085z"}), ("a:2", {"a": 2})]
