import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_adapter.data.chat_template import ChatTemplate
from llama_adapter.data.records import RecordProblem, Turn
from llama_adapter.errors import UserError
from tests.data.conftest import CHATML, DROPS_THOUGHTS

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
    ("turn", "reason"),
    [
        (
            "{% if m['role'] != 'system' %}{{ m['content'] }}\n{% endif %}",
            "leaves out turn 1 .system.; take it",
        ),
        (
            "{% if 'tw' not in m['content'] %}{{ m['content'] }}\n{% endif %}",
            "leaves out turn 4 .user.|rewrites .*4",
        ),
        ("{{ m['content'] | replace('t', 'T') }}\n", "leaves out or rewrites 'first' in turn 3 .assistant."),
        ("{{ m['content'] | replace('Be', 'be') }}\n", "rewrites turn 1 .system.; .*template: NAME.jinja"),
        (
            "{{ raise_exception('no') if m['role'] == 'system' else m['content'] }}\n",
            "refuses turn 1 .system.: no; put",
        ),
        (
            "{{ raise_exception('no') if m['content'] == 'second' else m['content'] }}\n",
            "refuses turn 5 .assistant.: no",
        ),
        (
            "{{ 1 + m['content'] if loop.index == 4 else m['content'] }}\n",
            "refuses turn 4 .user.: unsupported operand",
        ),
        (
            "{{ 'old ' if not loop.last and loop.index == 2 }}{{ m['content'] }}\n",
            "writes turn 2 .user. otherwise when",
        ),
    ],
)
def test_what_a_template_does_not_write_is_named_with_its_turn_and_a_way_out(byte_level, turn, reason):
    template = with_template(byte_level, f"{{% for m in messages %}}{turn}{{% endfor %}}")
    with pytest.raises(RecordProblem, match=reason):
        template.render(TALK)


def test_a_template_that_asks_otherwise_than_it_writes_is_refused_at_once(byte_level):
    text = "{{ messages | length }}{% for m in messages %}{{ m['content'] }}\n{% endfor %}"
    with pytest.raises(
        UserError, match="for the answer in turn 2, writes another prompt .* template: NAME.jinja"
    ):
        with_template(byte_level, text)


def test_text_that_follows_one_answer_only_carries_no_loss(byte_level):
    text = "{% for m in messages %}{{ m['content'] }}\n{{ 'x' if m['content'] == 'second' }}{% endfor %}"
    rendered = with_template(byte_level, text).render(TALK)
    assert rendered.text.endswith("ctx\nsecond\nx<|im_end|>")


ASKS_TO_THINK = CHATML.replace("assistant\n{% endif", "assistant\n<think>\n{% endif")


def test_what_only_the_request_ends_with_is_left_out_of_prompts_and_said_once(byte_level, caplog):
    template = with_template(byte_level, ASKS_TO_THINK)
    assert "asks for an answer with" in caplog.text
    rendered = template.render(TALK)
    assert parts(rendered)[0] == [" first <|im_end|>", "second<|im_end|>"]
    assert rendered.text[: rendered.answers[0][0]] == template.render_prompt(TALK[:2])


def test_an_answer_that_later_turns_rewrite_has_no_label_in_the_long_text(byte_level):
    talk = [*TALK[:2], Turn("assistant", "<think>so</think>first"), *TALK[3:]]
    template = with_template(byte_level, DROPS_THOUGHTS)
    rendered = template.render(talk)
    assert rendered.rewritten == [2]
    assert parts(rendered)[0] == ["second<|im_end|>"]
    assert "so" not in rendered.text
    assert parts(template.render(talk[:3]))[0] == ["<think>so</think>first<|im_end|>"]


def test_answers_without_loss_stay_in_the_text(byte_level):
    talk = [*TALK[:2], Turn("assistant", "first", learned=False), *TALK[3:]]
    rendered = ChatTemplate(byte_level).render(talk)
    assert "first<|im_end|>" in rendered.text
    assert parts(rendered)[0] == ["second<|im_end|>"]
    assert parts(rendered)[1] == ["Be kind.", "one", "two\n\nctx"]


def test_a_next_turns_token_ends_answers_that_have_none(byte_level):
    text = (
        "{% for m in messages %}{{ '<|im_start|>' if m['role'] == 'user' else '<pad>' }}"
        "{{ m['content'] }}{% endfor %}{{ '<pad>' if add_generation_prompt }}"
    )
    template = with_template(byte_level, text)
    rendered = template.render(TALK[1:])
    assert template.end_token == "<|im_start|>"
    assert parts(rendered)[0] == [" first <|im_start|>", "second<|im_start|>"]
    assert rendered.open_ends == []


def test_prompts_name_what_the_template_leaves_out(byte_level):
    text = "{% for m in messages %}{% if m['role'] != 'system' %}{{ m['content'] }}{% endif %}{% endfor %}"
    with pytest.raises(RecordProblem, match="leaves out turn 1 .system."):
        with_template(byte_level, text).render_prompt(TALK[:2])


def test_a_template_that_cannot_render_at_all_is_refused_at_once(byte_level):
    with pytest.raises(
        UserError, match="cannot render one question with its answer: .*refuses turn 1 .*NAME.jinja"
    ):
        with_template(byte_level, "{{ raise_exception('never') }}")


def test_without_a_chat_template_the_error_says_what_else_there_is(byte_tokenizer):
    with pytest.raises(
        UserError, match="template is 'chat', but .* has no chat template. Use template alpaca or plain"
    ):
        ChatTemplate(byte_tokenizer)
