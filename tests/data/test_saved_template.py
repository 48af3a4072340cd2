"""Other programs ask and stop as ours do: by the files that lie beside a model."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from llama_adapter.data import Encoder, Turn, load_template
from llama_adapter.data.saved_template import save_template
from llama_adapter.errors import UserError
from llama_adapter.generation import Generator
from tests.tiny import CHAT_TEMPLATE, byte_tokenizer, tiny_llama

TEXTS = st.text(max_size=20)


def with_jinja(name, tokenizer):
    """The template, and a tokenizer that asks by it."""
    template = load_template(name, tokenizer)
    begin = tokenizer.convert_ids_to_tokens(Encoder(tokenizer).begin_id)
    tokenizer.chat_template = template.jinja(begin)
    return template, tokenizer, begin


def messages(turns):
    return [{"role": turn.role, "content": turn.text} for turn in turns]


@pytest.mark.parametrize("name", ["alpaca", "plain", "sphinx"])
@settings(deadline=None, max_examples=30)
@given(question=TEXTS, answer=TEXTS)
def test_the_chat_template_is_the_template(name, question, answer):
    template, tokenizer, begin = with_jinja(name, byte_tokenizer())
    turns = [Turn("user", question)]
    prompt = tokenizer.apply_chat_template(messages(turns), tokenize=False, add_generation_prompt=True)
    assert prompt == begin + template.render_prompt(turns)
    turns.append(Turn("assistant", answer))
    assert (
        tokenizer.apply_chat_template(messages(turns), tokenize=False) == begin + template.render(turns).text
    )


@pytest.mark.parametrize("name", ["plain", "sphinx"])
@settings(deadline=None, max_examples=30)
@given(texts=st.lists(TEXTS, min_size=2, max_size=5))
def test_conversations_are_the_same_too(name, texts):
    template, tokenizer, begin = with_jinja(name, byte_tokenizer())
    roles = ["system", *["user", "assistant"] * 3]
    turns = [Turn(role, text) for role, text in zip(roles, texts, strict=False)]
    if turns[-1].role == "assistant":
        turns = turns[:-1]
    prompt = tokenizer.apply_chat_template(messages(turns), tokenize=False, add_generation_prompt=True)
    assert prompt == begin + template.render_prompt(turns)


def test_alpaca_has_no_place_for_a_conversation():
    _, tokenizer, _ = with_jinja("alpaca", byte_tokenizer())
    turns = [Turn("user", "a"), Turn("assistant", "b"), Turn("user", "c")]
    for wrong in (turns, [Turn("system", "s"), *turns[:1]]):
        with pytest.raises(Exception, match="takes one instruction and one answer"):
            tokenizer.apply_chat_template(messages(wrong), tokenize=False)


def saved(folder, chat_template=None, **changes):
    model, tokenizer = tiny_llama(**changes), byte_tokenizer(chat_template)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model, tokenizer


@pytest.mark.parametrize("name", ["alpaca", "plain"])
def test_the_prompt_has_the_very_tokens_of_ours(name, tmp_path):
    model, tokenizer = saved(tmp_path, CHAT_TEMPLATE)
    assert "chat template is the template" in save_template(tmp_path, tokenizer, name)[1]
    again = AutoTokenizer.from_pretrained(tmp_path)
    turns = [Turn("user", "Wie? {{ x }}\n")]
    asked = again.apply_chat_template(messages(turns), add_generation_prompt=True, return_dict=False)
    assert asked == Generator(model, tokenizer, name).encode(turns)
    assert tokenizer.chat_template == CHAT_TEMPLATE  # that of the caller stays


def test_plain_transformers_stops_where_ours_does(tmp_path):
    """A base that ends texts with one token, in a chat whose template ends answers with another."""
    ending = CHAT_TEMPLATE.replace("{{ eos_token }}", "<pad>")
    _, tokenizer = saved(tmp_path, ending)
    (note,) = save_template(tmp_path, tokenizer)
    assert "Answers end at ['<pad>', '</s>']" in note
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert model.generation_config.eos_token_id == [0, 2]
    assert set(model.generation_config.eos_token_id) == Generator(model, tokenizer)._stop_ids()
    with torch.no_grad():
        model.lm_head.weight.zero_()  # the first token, which ends, is the likeliest
    assert model.generate(torch.tensor([[1, 5]]), max_new_tokens=9).tolist() == [[1, 5, 0]]


def test_what_the_file_said_stays(tmp_path):
    _, tokenizer = saved(tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps({"top_k": 7, "eos_token_id": [9, 2]}))
    save_template(tmp_path, tokenizer, "plain")
    content = json.loads((tmp_path / "generation_config.json").read_text())
    assert content == {"top_k": 7, "eos_token_id": [2, 9]}


def test_an_end_of_several_tokens_is_said(tmp_path):
    _, tokenizer = saved(tmp_path)
    notes = save_template(tmp_path, tokenizer, "sphinx")
    assert "'\\n###', which is no single token: give it to other programs as a stop string" in notes[0]


def test_an_unknown_template_is_refused(tmp_path):
    _, tokenizer = saved(tmp_path)
    with pytest.raises(UserError, match="template is 'alpacca'"):
        save_template(tmp_path, tokenizer, "alpacca")
