"""Rows out of official files that are one object, with all splits and several answers in one record."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_adapter.data.records import RawRow
from llama_adapter.data.rows import chosen_rows, joined_rows, read_json_object

PROBLEMS = {"7": {"split": "train", "question": "a?"}, "9": {"split": "val", "question": "b?"}}


@pytest.fixture
def rows_of(tmp_path):
    def read(content, records):
        path = tmp_path / "file.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return list(read_json_object(path, "file.json", records))

    return read


def test_every_value_is_a_record_and_keeps_its_key(rows_of):
    rows = rows_of(PROBLEMS, "*")
    assert [(row.record_id, row.row["key"]) for row in rows] == [("file.json:7", "7"), ("file.json:9", "9")]


def test_a_list_under_a_key_is_counted_from_one(rows_of):
    rows = rows_of({"images": [{"a": 1}, {"a": 2}], "info": {}}, "images")
    assert [(row.record_id, row.row) for row in rows] == [
        ("file.json:1", {"a": 1}),
        ("file.json:2", {"a": 2}),
    ]


@pytest.mark.parametrize(
    ("content", "records", "said"),
    [
        ("{", "*", "the file is no JSON"),
        ({"a": 1, "b": 2}, "images", r"no records under 'images'; the file has \['a', 'b'\]"),
        ([1], "images", "the file has list"),
        ({"images": [3]}, "images", ""),
    ],
)
def test_problems_are_rows_too(rows_of, content, records, said):
    (row,) = rows_of(content, records)
    assert row.problem
    assert re.search(said, row.problem)


def test_only_rows_with_one_of_the_values():
    rows = [RawRow(str(number), row={"split": split}) for number, split in enumerate("aabc")]
    chosen = list(chosen_rows(rows, {"split": ["a", "c"]}, None))
    assert [row.record_id for row in chosen] == ["0", "1", "3"]


def test_values_are_compared_as_texts():
    rows = [RawRow("0", row={"grade": 3}), RawRow("1", row={}), RawRow("2", problem="broken")]
    assert [row.record_id for row in chosen_rows(rows, {"grade": ["3"]}, None)] == ["0", "2"]


@given(st.lists(st.lists(st.integers(), max_size=4), max_size=5))
def test_each_entry_is_a_record_of_its_own(lists):
    rows = [RawRow(f"r{number}", row={"x": entries, "y": number}) for number, entries in enumerate(lists)]
    found = list(chosen_rows(rows, {}, "x"))
    assert [(row.row["y"], row.row["x"]) for row in found] == [
        (number, entry) for number, entries in enumerate(lists) for entry in entries
    ]
    assert len({row.record_id for row in found}) == len(found)


def test_joined_rows_have_the_columns_of_both():
    rows = [
        RawRow("0", row={"id": 1, "q": "a"}),
        RawRow("1", row={"id": 2, "q": "b"}),
        RawRow("2", problem="bad"),
    ]
    others = [RawRow("x", row={"id": "2", "a": "B", "q": "other"}), RawRow("y", problem="worse")]
    lost, found, bad = joined_rows(rows, others, "id")
    assert "the joined file has no record with id=1" in lost.problem
    assert found.row == {"id": 2, "q": "b", "a": "B"}
    assert bad.problem == "bad"
