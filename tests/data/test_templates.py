import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_adapter.data.records import RecordProblem, Turn
from llama_adapter.data.templates import AlpacaTemplate, PlainTemplate, load_template
from llama_adapter.errors import UserError

TEXT = st.text(st.characters(codec="utf-8"), max_size=12)


@pytest.mark.parametrize(("context", "key"), [("", "input=''"), ("CTX", "input='CTX'")])
def test_the_alpaca_prompts_are_the_published_ones(context, key, repository):
    golden = json.loads((repository / "tests/golden/data_golden.json").read_text())
    prompt = AlpacaTemplate("</s>").render_prompt([Turn("user", "INSTR", context)])
    assert prompt == golden["imagebind_format_prompt"][key]


def test_the_alpaca_answer_follows_without_separator_and_is_located():
    rendered = AlpacaTemplate("</s>").render([Turn("user", "Add.", "2 3"), Turn("assistant", "5")])
    assert rendered.text.endswith("### Input:\n2 3\n\n### Response:5</s>")
    assert [rendered.text[a:b] for a, b in rendered.answers] == ["5</s>"]
    assert [rendered.text[a:b] for a, b in rendered.contents] == ["Add.", "2 3"]


@pytest.mark.parametrize(
    "turns",
    [
        [Turn("system", "s"), Turn("user", "q"), Turn("assistant", "a")],
        [Turn("user", "q"), Turn("assistant", "a"), Turn("user", "q"), Turn("assistant", "a")],
        [Turn("assistant", "a")],
    ],
)
def test_alpaca_has_no_place_for_conversations(turns):
    with pytest.raises(RecordProblem, match="one instruction and one answer, .*; use template chat"):
        AlpacaTemplate("</s>").render(turns)


def test_plain_writes_turns_as_they_are():
    turns = [
        Turn("user", "Q: ", "ctx"),
        Turn("assistant", "A"),
        Turn("user", " then "),
        Turn("assistant", "B"),
    ]
    rendered = PlainTemplate("|").render(turns)
    assert rendered.text == "Q: \n\nctxA| then B|"
    assert [rendered.text[a:b] for a, b in rendered.answers] == ["A|", "B|"]


@given(question=TEXT, context=TEXT, answer=TEXT)
@pytest.mark.parametrize("template", [AlpacaTemplate("</s>"), PlainTemplate("</s>")])
def test_the_prompt_is_a_prefix_of_the_training_text(template, question, context, answer):
    turns = [Turn("user", question, context), Turn("assistant", answer)]
    rendered = template.render(turns)
    prompt = template.render_prompt(turns[:1])
    assert rendered.text == prompt + answer + "</s>"
    assert rendered.answers == [(len(prompt), len(rendered.text))]


def test_templates_are_built_by_name(byte_level):
    assert load_template("alpaca", byte_level).end_token == "<|im_end|>"
    assert load_template("chat", byte_level).render_prompt([Turn("user", "hi")]).endswith("assistant\n")
    with pytest.raises(
        UserError, match=r"template is 'alpacca'. Did you mean 'alpaca'\? Use one of: chat, alpaca, plain"
    ):
        load_template("alpacca", byte_level)


def test_a_tokenizer_without_end_token_is_refused(byte_tokenizer):
    import copy

    endless = copy.deepcopy(byte_tokenizer)
    endless.eos_token = None
    with pytest.raises(
        UserError, match="eos_token of the tokenizer .* is None.* Set the tokenizer's eos_token"
    ):
        load_template("plain", endless)
