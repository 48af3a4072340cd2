import pytest

from llama_adapter.errors import UserError
from llama_adapter.evaluation.files import (
    field_of,
    read_json,
    read_records,
    read_text,
    write_json,
    write_lines,
)


def test_what_is_written_is_read_again(tmp_path):
    rows = [{"id": "é", "n": 1}, {"id": "b", "n": None}]
    write_lines(tmp_path / "new/rows.jsonl", rows)
    write_json(tmp_path / "new/rows.json", rows)
    assert read_records(tmp_path / "new/rows.jsonl") == read_json(tmp_path / "new/rows.json") == rows


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.jsonl", '{"a": 1}\n{"a": \n', "a.jsonl:2: .* is not valid JSON .* Use one value per line"),
        ("a.json", "{", "a.json: not valid JSON, .* Use a JSON file"),
        ("a.json", '{"a": 1}', "holds a dict. Use a list of objects"),
        ("a.json", "[1]", "item 1 is 1. Use an object"),
    ],
)
def test_a_broken_file_is_named_with_its_line(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=said):
        read_records(tmp_path / name)


def test_missing_and_foreign_files_are_named(tmp_path):
    with pytest.raises(UserError, match="none.json: No such file or directory. Check the path"):
        read_json(tmp_path / "none.json")
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    with pytest.raises(UserError, match="not UTF-8 at byte 3. Use UTF-8"):
        read_text(tmp_path / "latin")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="Choose a place that can be written"):
        write_json(tmp_path / "file/inside.json", {})


def test_a_field_may_have_several_names():
    assert field_of({"b": 0, "a": None}, ("a", "b"), "here") == 0
    with pytest.raises(UserError, match="here: .* has none of the fields a, b. Use one"):
        field_of({"c": 1}, ("a", "b"), "here")
