"""The chat loop: history, commands, and errors that do not end it."""

import pytest

from llama_adapter.data import Turn
from llama_adapter.generation import GenerateConfig
from llama_adapter.generation.chat import Chat
from llama_adapter.generation.session import Session


@pytest.fixture
def start(tiny_base):
    def build(**settings):
        config = GenerateConfig(base=str(tiny_base), interactive=True, max_new_tokens=6, **settings)
        written = []
        return Chat(Session(config), written.append), written

    return build


def say(chat, *lines):
    rest = iter(lines)

    def ask():
        try:
            return next(rest)
        except StopIteration:
            raise EOFError from None

    chat.run(ask)


def test_history_is_shown_to_the_model(start):
    chat, _ = start(template="chat")
    say(chat, "first", "  ", "second")
    assert [turn.role for turn in chat.history] == ["user", "assistant", "user", "assistant"]
    first = chat.history[1].text
    wanted = chat.generator.answer([[Turn("user", "first")]], chat.session.config)
    assert [first] == wanted
    wanted = chat.generator.answer([chat.history[:3]], chat.session.config)
    assert [chat.history[3].text] == wanted


def test_reset_forgets_and_exit_leaves(start):
    chat, written = start(template="chat")
    say(chat, "first", "/reset", "second", "/exit", "third")
    assert [turn.text for turn in chat.history if turn.role == "user"] == ["second"]
    assert "The conversation starts anew.\n" in written


def test_a_template_without_history_gets_each_question_alone(start):
    chat, written = start(template="alpaca")
    say(chat, "first", "second")
    assert "earlier ones are not shown" in "".join(written)
    assert [chat.history[1].text] == chat.generator.answer([[Turn("user", "second")]], chat.session.config)


def test_wrong_commands_and_prompts_are_told_and_the_chat_goes_on(start):
    chat, written = start(template="chat")
    say(chat, "/adaptr x", "/adapter nobody", "x" * 600, "fine")
    text = "".join(written)
    assert "'/adaptr' is not a command. /reset forgets" in text
    assert "There is no adapter 'nobody'. Use one of: base." in text
    assert "tokens, the model's context 512" in text
    assert [turn.text for turn in chat.history if turn.role == "user"] == ["fine"]


def test_switching_says_who_answers(start):
    chat, written = start()
    say(chat, "/adapter base", "/help")
    assert "base answers now, with template chat.\n" in written
    assert sum("base answers (base)." in text for text in written) == 2


def test_system_message_is_shown_but_not_part_of_the_history(start):
    chat, _ = start(template="chat", system="be kind")
    say(chat, "first")
    turns = [Turn("system", "be kind"), Turn("user", "first")]
    assert [chat.history[1].text] == chat.generator.answer([turns], chat.session.config)
    assert chat.history[0] == Turn("user", "first")
