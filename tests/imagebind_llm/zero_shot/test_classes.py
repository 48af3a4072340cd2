"""Folders and files of names."""

import json

import pytest

from imagebind_llm.zero_shot.classes import read_classes
from llama_adapter import UserError


def make(root, *files):
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("one\n\ntwo\n")


def test_lines_of_text_files_are_records(tmp_path):
    make(tmp_path, "b/x.txt", "a_c/y.txt")
    found = read_classes(tmp_path, texts=True)
    assert found.folders == ["a_c", "b"]
    assert found.names == [["a c"], ["b"]]
    assert [(record.id, record.content, record.label) for record in found.records] == [
        ("a_c/y.txt:1", "one", 0),
        ("a_c/y.txt:3", "two", 0),
        ("b/x.txt:1", "one", 1),
        ("b/x.txt:3", "two", 1),
    ]


def test_names_by_line(tmp_path):
    make(tmp_path / "data", "n01/x.png", "n02/x.png")
    names = tmp_path / "names.txt"
    names.write_text("tench\ngoldfish\n")
    assert read_classes(tmp_path / "data", names=str(names)).names == [["tench"], ["goldfish"]]
    names.write_text("tench\n")
    with pytest.raises(UserError, match="1 names for 2 folders"):
        read_classes(tmp_path / "data", names=str(names))


@pytest.mark.parametrize("content", [[], {}, {"a": []}, {"a": [" "]}, {"a": 3}, "a"])
def test_names_of_another_form(tmp_path, content):
    make(tmp_path / "data", "a/x.png")
    (tmp_path / "names.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="holds no names. Use"):
        read_classes(tmp_path / "data", names=str(tmp_path / "names.json"))


def test_a_folder_without_name(tmp_path):
    make(tmp_path / "data", "a/x.png", "b/x.png")
    (tmp_path / "names.json").write_text('{"a": "an a"}')
    with pytest.raises(UserError, match="no name for the folder 'b'"):
        read_classes(tmp_path / "data", names=str(tmp_path / "names.json"))


def test_folders_that_hold_nothing(tmp_path):
    with pytest.raises(UserError, match="is no folder"):
        read_classes(tmp_path / "none")
    with pytest.raises(UserError, match="holds no folders"):
        read_classes(tmp_path)
    (tmp_path / "a").mkdir()
    with pytest.raises(UserError, match="hold no files"):
        read_classes(tmp_path)
