import pytest

from llama_adapter.data import DataConfig, SourceConfig, build_datasets
from llama_adapter.data.records import Turn
from llama_adapter.data.template_base import Rendered, Template
from llama_adapter.data.templates import TEMPLATES


class QuestionTemplate(Template):
    """What somebody else's template looks like."""

    def __init__(self, end_token):
        self.end_token = end_token

    @property
    def identity(self):
        return "question/1"

    def render(self, turns, tools=()):
        prompt = self.render_prompt(turns[:-1])
        text = prompt + turns[-1].text + self.end_token
        return Rendered(text, [(len(prompt), len(text))], [(3, len(prompt) - 4)])

    def render_prompt(self, turns, tools=()):
        return f"Q: {turns[0].text}\nA: "


def test_a_template_must_say_everything():
    with pytest.raises(TypeError, match="abstract"):
        Template()


def test_a_new_template_is_one_class_and_one_line(monkeypatch, byte_level, write, tmp_path):
    monkeypatch.setitem(TEMPLATES, "question", lambda tokenizer: QuestionTemplate(tokenizer.eos_token))
    path = write("a.jsonl", [{"prompt": "word " * 60, "completion": "Paris"}])
    config = DataConfig(
        train=[SourceConfig(path=str(path))], template="question", max_length=40, cache_dir=str(tmp_path)
    )
    row = build_datasets(config, byte_level).train[0]
    text = byte_level.decode(row["input_ids"])
    assert text.startswith("Q: word")
    assert text.endswith("word \nA: Paris<|im_end|>")
    assert byte_level.decode([label for label in row["labels"] if label != -100]) == "Paris<|im_end|>"
    assert len(row["input_ids"]) <= 40
    assert QuestionTemplate("x").render_prompt([Turn("user", "hi")]) == "Q: hi\nA: "
