import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_adapter.data.chat_template import ChatTemplate
from llama_adapter.data.records import RecordProblem, Turn
from llama_adapter.errors import UserError

TEXT = st.text(st.characters(codec="utf-8"), max_size=10)
ANSWER = TEXT.filter(lambda text: text.strip())
TALK = [
    Turn("system", "Be kind."),
    Turn("user", "one"),
    Turn("assistant", " first "),
    Turn("user", "two", "ctx"),
    Turn("assistant", "second"),
]


def with_template(tokenizer, text):
    changed = copy.deepcopy(tokenizer)
    changed.chat_template = text
    return ChatTemplate(changed)


def parts(rendered):
    return [rendered.text[a:b] for a, b in rendered.answers], [
        rendered.text[a:b] for a, b in rendered.contents
    ]


def test_every_answer_is_located_with_its_end_token(byte_level):
    answers, contents = parts(ChatTemplate(byte_level).render(TALK))
    assert answers == [" first <|im_end|>", "second<|im_end|>"]
    assert contents == ["Be kind.", "one", "two\n\nctx"]


def test_the_text_is_the_tokenizers_own_up_to_the_last_end_token(byte_level):
    text = ChatTemplate(byte_level).render(TALK[1:3]).text
    messages = [{"role": turn.role, "content": turn.text} for turn in TALK[1:3]]
    assert text + "\n" == byte_level.apply_chat_template(messages, tokenize=False)


def test_a_template_that_trims_and_spaces_is_followed_to_the_character(llama_like):
    template = ChatTemplate(llama_like)
    rendered = template.render([Turn("user", " one\n"), Turn("assistant", "first "), *TALK[3:]])
    assert rendered.text == "<s>[INST] one [/INST] first </s>[INST] two\n\nctx [/INST] second </s>"
    answers, contents = parts(rendered)
    assert answers == [" first </s>", " second </s>"]
    assert contents == ["one", "two\n\nctx"]


@given(question=TEXT, first=ANSWER, second=TEXT, last=ANSWER)
@pytest.mark.parametrize("name", ["byte_level", "llama_like"])
def test_prompts_are_prefixes_of_the_training_text(name, question, first, second, last, request):
    template = ChatTemplate(request.getfixturevalue(name))
    turns = [Turn("user", question), Turn("assistant", first), Turn("user", second), Turn("assistant", last)]
    rendered = template.render(turns)
    for (start, end), number in zip(rendered.answers, (1, 3), strict=True):
        assert rendered.text[:start] == template.render_prompt(turns[:number])
        assert (
            rendered.text[start:end].strip().removesuffix(template.end_token).strip()
            == turns[number].text.strip()
        )
        assert rendered.text[start:end].endswith(template.end_token)


def test_text_between_prompt_and_answer_is_learned(byte_level):
    thinking = byte_level.chat_template.replace(
        "{{ message['content'] }}",
        "{% if message['role'] == 'assistant' %}<think></think>{% endif %}{{ message['content'] }}",
    )
    answers, _ = parts(with_template(byte_level, thinking).render(TALK[1:3]))
    assert answers == ["<think></think> first <|im_end|>"]


def test_without_an_end_token_of_its_own_the_last_answer_gets_one(byte_level):
    bare = (
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    template = with_template(byte_level, bare)
    rendered = template.render(TALK[1:])
    assert parts(rendered)[0] == [" first ", "second<|im_end|>"]
    assert [rendered.text[:end][-6:] for end in rendered.open_ends] == ["first "]
    assert template.end_token == "<|im_end|>"


@pytest.mark.parametrize(
    ("start", "turn", "reason"),
    [
        ("", "{% if m['role'] != 'system' %}{{ m['content'] }}\n{% endif %}", "leaves out turn 1 .system."),
        ("", "{{ m['content'] | replace('i', 'I') }}\n", "rewrites turn 1 .system."),
        ("", "{{ raise_exception('no') if m['role'] == 'system' else m['content'] }}\n", "refuses .* .no."),
        ("{{ messages | length }}", "{{ m['content'] }}\n", "writes another prompt"),
        ("", "{{ m['content'] }}\n{{ 'x' if m['content'] == 'second' }}", "adds 'x' for these turns only"),
    ],
)
def test_templates_that_do_not_render_faithfully_are_noticed(byte_level, start, turn, reason):
    body = f"{start}{{% for m in messages %}}{turn}{{% endfor %}}"
    template = with_template(byte_level, body)
    with pytest.raises(RecordProblem, match=reason):
        template.render(TALK)


def test_a_template_that_cannot_render_at_all_is_refused_at_once(byte_level):
    with pytest.raises(
        UserError, match="cannot render one question with its answer: .* Use template alpaca or plain"
    ):
        with_template(byte_level, "{{ raise_exception('never') }}")


def test_without_a_chat_template_the_error_says_what_else_there_is(byte_tokenizer):
    with pytest.raises(
        UserError, match="template is 'chat', but .* has no chat template. Use template alpaca or plain"
    ):
        ChatTemplate(byte_tokenizer)
