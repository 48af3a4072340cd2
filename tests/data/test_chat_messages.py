import copy

import pytest

from llama_adapter.data.chat_messages import ChatMessages
from llama_adapter.data.records import RecordProblem, Turn
from tests.data.conftest import CHATML

ASK = Turn("user", "2+2?")
TOOLS = [{"type": "function", "function": {"name": "add", "description": "adds", "parameters": {}}}]


def calls(arguments, *names):
    functions = [{"name": name, "arguments": arguments} for name in names]
    return Turn("assistant", "", tool_calls=[{"type": "function", "function": one} for one in functions])


def with_template(tokenizer, text):
    changed = copy.deepcopy(tokenizer)
    changed.chat_template = text
    return ChatMessages(changed)


def writing(before="", behind=""):
    """ChatML with something more in front and behind each text."""
    return CHATML.replace("{{ message['content'] }}", f"{before}{{{{ message['content'] }}}}{behind}")


AS_JSON = writing(
    behind="{% for c in message.tool_calls or [] %}"
    "[{{ c.function.name }} {{ c.function.arguments | tojson }}]{% endfor %}"
)
AS_TEXT = writing(
    behind="{% for c in message.tool_calls or [] %}"
    "{{ '[' + c.function.name + ' ' + c.function.arguments + ']' }}{% endfor %}"
)
FIRST_ONLY = AS_JSON.replace("message.tool_calls or []", "(message.tool_calls or [])[:1]")


@pytest.mark.parametrize("arguments", [{"x": 2}, '{"x": 2}'])
@pytest.mark.parametrize("text", [AS_JSON, AS_TEXT])
def test_arguments_come_in_the_form_that_the_template_reads(arguments, text, byte_level):
    written = with_template(byte_level, text).apply([ASK, calls(arguments, "add")])
    assert '[add {"x": 2}]' in written


def test_a_call_without_its_shell_is_one_too(byte_level):
    bare = Turn("assistant", "", tool_calls=[{"name": "add", "arguments": {"x": 2}}])
    assert '[add {"x": 2}]' in with_template(byte_level, AS_JSON).apply([ASK, bare])


@pytest.mark.parametrize("text", [CHATML, FIRST_ONLY])
def test_calls_that_are_left_out_in_part_or_altogether_are_named(text, byte_level):
    messages, turns = with_template(byte_level, text), [ASK, calls({"x": 2}, "add", "add")]
    with pytest.raises(
        RecordProblem, match="turn 2 .assistant. calls add, add, and .* leaves calls out; take them"
    ):
        messages.check_extras(turns, (), messages.apply(turns))


def test_arguments_that_are_no_json_are_named(byte_level):
    with pytest.raises(RecordProblem, match="arguments of a call of 'add' are no JSON .'x=2'."):
        with_template(byte_level, AS_JSON).apply([ASK, calls("x=2", "add")])


def test_tools_without_a_place_are_named(byte_level):
    messages = with_template(byte_level, CHATML)
    with pytest.raises(
        RecordProblem, match="the record has tools .add., for which the chat template has no place"
    ):
        messages.check_extras([ASK], TOOLS, messages.apply([ASK], TOOLS))


def test_tools_reach_a_template_that_has_a_place(byte_level):
    messages = with_template(byte_level, "{{ tools | tojson if tools }}" + CHATML)
    text = messages.apply([ASK], TOOLS)
    messages.check_extras([ASK], TOOLS, text)
    assert text.startswith('[{"type": "function", "function": {"name": "add"')


def test_tools_that_a_template_cannot_read_are_named_as_such(byte_level):
    messages = with_template(
        byte_level, "{% for t in tools or [] %}{{ t.function.name + '' }}{% endfor %}" + CHATML
    )
    with pytest.raises(RecordProblem, match="refuses the record's tools .*write them as JSON schemas"):
        messages.apply([ASK], [{"name": "add"}])


def test_thoughts_go_to_the_key_that_the_template_reads(byte_level):
    turns = [ASK, Turn("assistant", "4", reasoning="add up")]
    messages = with_template(byte_level, writing("{{ message['reasoning'] }}|"))
    assert "add up|4" in messages.apply(turns)
    plain = with_template(byte_level, CHATML)
    with pytest.raises(
        RecordProblem, match="turn 2 .assistant. has a thought .reasoning_content., for which"
    ):
        plain.check_extras(turns, (), plain.apply(turns))


def test_templates_of_models_that_see_get_lists_of_parts(byte_level):
    text = CHATML.replace(
        "{{ message['content'] }}",
        "{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}"
        "{{ part.text }}{% endfor %}",
    )
    assert "2+2?<|im_end|>" in with_template(byte_level, text).apply([ASK])


def test_results_of_tools_keep_their_keys(byte_level):
    text = writing("{{ message.name }}:{{ message.tool_call_id }}:")
    result = Turn("tool", "4", name="add", tool_call_id="c1")
    assert "add:c1:4" in with_template(byte_level, text).apply([ASK, result])
