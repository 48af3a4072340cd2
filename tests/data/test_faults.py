"""Damaged and odd files of records: each is used or named with file and line."""

import json

import pytest

from llama_adapter.data.config import SourceConfig
from llama_adapter.data.containers import CONTAINERS
from llama_adapter.data.sources import canonical_rows, source_plans
from llama_adapter.errors import UserError
from llama_adapter.generation.prompts import read_prompts

GOOD = '{"instruction": "a", "output": "b"}'


@pytest.fixture
def problems(write):
    def read(text, name="f.jsonl", **settings):
        path = write(name, text)
        rows = canonical_rows(source_plans(SourceConfig(path=str(path), **settings)))
        return {row["record_id"].rpartition(":")[2]: row["problem"] for row in rows}

    return read


def beside(fault):
    return f"{GOOD}\n{fault}\n{GOOD}"


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ('{"instruction": "a", "output": "b", "n": ' + "1" * 5000 + "}", "a number has thousands of digits"),
        ("1" * 5000, "a number has thousands of digits"),
        ('{"instruction": "a", "output": "b", "x": ' + "[" * 100_000, "nested too deeply"),
        ('{"instruction": "a", "output": "b", "x": ' + "[" * 300 + "]" * 300 + "}", ""),
        ('{"instruction": "a", "output": "b", "output": "c"}', "the key 'output' occurs twice"),
        ('{"instruction": "a", "output": "b", "m": {"k": 1, "k": 2}}', "the key 'k' occurs twice"),
        ('{"instruction": "a", "output": ""}', "the answer in turn 2 is empty"),
        ('{"instruction": "a", "output": null}', r"'output' is empty (null)"),
        ('{"instruction": "a", "output": "b", "n": NaN, "i": -Infinity, "z": 1e999}', ""),
        ('{"instruction": NaN, "output": "b"}', "'instruction' is float"),
        ('{"instruction": "a", "output": "\\ud800"}', "half a surrogate pair"),
        ('{"instruction": "a", "output": "b", "\\udfff": 1}', ""),
        ('{"instruction": "a", "output": "b", "image": "\\ud800"}', "no UTF-8"),
        ('{"instruction": "a", "output": "b", "image": "a\\u0000b"}', "zero byte"),
        ('{"instruction": "a", "output": "b", "n": 18446744073709551616}', ""),
        ('{"instruction": "a\\u2028b\\u000c", "output": "b"}', ""),
        ("{}", "'instruction' is missing"),
        ("[" * 900 + "]" * 900, "the record is list"),
        ('"text"', "the record is str"),
        ('{"instruction": "a", "output": ["b", "c"]}', "'output' is list"),
        ('{"instruction": {"a": 1}, "output": "b"}', "'instruction' is dict"),
    ],
)
def test_a_fault_concerns_its_own_line(problems, fault, said):
    found = problems(beside(fault))
    assert set(found) == {"1", "2", "3"}
    assert found["1"] == found["3"] == ""
    assert said in found["2"]
    assert bool(found["2"]) == bool(said)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"sentences": [5], "filename": "x.jpg"}], "must be a list of objects"),
        ([{"sentences": 5, "filename": "x.jpg"}], "must be a list of objects"),
        ([{"sentences": [{"raw": None}], "filename": "x.jpg"}], "'raw' is NoneType"),
        ([{"sentences": [{"raw": "a"}], "filename": 3}], "'filename' is int"),
        ([{"question": "q", "image": "x.jpg"}], "'answers' is missing"),
        ([{"question": "q", "answers": {"a": 1}, "image": "x.jpg"}], "'answers' holds"),
        ([{"question": 3, "answers": ["a"]}], "'question' is int"),
        ([{"question": "q", "choices": "ab", "answer": 0}], "is no question"),
        ([{"question": "q", "choices": ["a", "b"], "answer": "B"}], "answer is 'B'"),
    ],
)
def test_records_of_special_formats(problems, rows, said):
    names = {"sentences": "karpathy", "choices": "scienceqa"}
    form = next((names[key] for key in rows[0] if key in names), "vqa")
    (problem,) = problems(json.dumps(rows), "f.json", format=form).values()
    assert said in problem


@pytest.mark.parametrize(
    "row", [{"filename": None, "raw": [], "sentences": None}, {}, {"sentences": [None], "filename": "a"}]
)
def test_accessory_names_what_it_cannot_read(problems, row):
    (problem,) = problems(json.dumps(row), format="accessory").values()
    assert "of no known format" in problem or "must be a list of objects" in problem


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"a": ' * 100_000, "nested too deeply"),
        ("[" + "1" * 5000 + "]", "thousands of digits"),
        ("\x00", "invalid JSON"),
    ],
)
def test_a_file_that_holds_nothing_else(problems, content, said):
    with pytest.raises(
        UserError, match=rf"no record of .* can be read \(.*f.json:1: .*{said}.*Repair the file"
    ):
        problems(content, "f.json")
    with pytest.raises(UserError, match=r"no record of .* can be read"):
        problems(content, "f.json", records="images")


@pytest.mark.parametrize("suffix", sorted(CONTAINERS))
def test_no_container_raises_for_what_is_in_a_file(write, suffix):
    for content in (
        b"",
        b"\xff\xfe",
        b"\x00" * 50,
        b"[{",
        b'{"a"',
        b'"',
        b"a,b\n1",
        b"PAR1",
        b"\xef\xbb\xbf",
    ):
        list(CONTAINERS[suffix](write("f" + suffix, content), "f"))
        with pytest.raises(UserError, match="f" + suffix):
            read_prompts(write("f" + suffix, content))
