"""What docs/data.md shows is what happens."""

import json
import re
from pathlib import Path

import pytest

from llama_adapter.data.config import DataConfig
from llama_adapter.data.formats import FORMATS, detect_format
from llama_adapter.data.reading import read_record
from llama_adapter.data.records import RawRow

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"### (\w+)\n(?:(?!###).)*?```json\n(.*?)\n```", PAGE, flags=re.S)


def test_every_format_has_its_example():
    assert {name for name, _ in EXAMPLES} == set(FORMATS)


@pytest.mark.parametrize(("name", "example"), EXAMPLES)
def test_examples_are_detected_and_read(name, example):
    row = json.loads(example)
    form = FORMATS[name] if name == "accessory" else detect_format(row, name)  # that one is set, never found
    assert form.name == name
    assert read_record(form, RawRow("docs:1", row)).turns[-1].role == "assistant"


def test_configurations_are_valid():
    from jsonargparse import ArgumentParser

    parser = ArgumentParser()
    parser.add_argument("--data", type=DataConfig)
    texts = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.S)
    assert len(texts) == 3
    for text in texts:
        config = parser.instantiate(parser.parse_string(text)).data
        assert isinstance(config, DataConfig)


def test_the_example_of_a_new_format_works(monkeypatch):
    from llama_adapter.data import Turn, register_format
    from llama_adapter.data.fields import Parsed, text_of

    monkeypatch.setattr("llama_adapter.data.formats.FORMATS", dict(FORMATS))
    code = re.search(r"```python\n(@register_format.*?)```", PAGE, flags=re.S).group(1)
    exec(code, {"register_format": register_format, "Parsed": Parsed, "Turn": Turn, "text_of": text_of})
    assert detect_format({"question", "answer"}, "f").name == "qa"
