import copy

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llama_adapter.data.encoding import IGNORE, Encoder, answer_labels
from llama_adapter.data.records import Turn
from llama_adapter.data.template_base import Rendered
from llama_adapter.data.templates import load_template
from llama_adapter.errors import UserError

TOKENIZERS = ["byte_level", "llama_like", "llama_legacy", "byte_tokenizer"]
# what the tokenizers have merged across borders, white space of every kind, and anything else
LETTERS = st.sampled_from(list("stParis:)( \n\t.A1äé你😀#")) | st.characters(
    codec="utf-8", exclude_characters="▁"
)
TEXT = st.text(LETTERS, max_size=12)
ANSWER = TEXT.filter(lambda text: text.strip())
PROPERTY = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
    deadline=None,
    max_examples=150,
)


@pytest.fixture(scope="session")
def encoder_of(request):
    """Builds each encoder once."""
    built = {}

    def build(name):
        if name not in built:
            tokenizer = request.getfixturevalue(name)
            built[name] = (tokenizer, Encoder(tokenizer))
        return built[name]

    return build


def encoded(name, template_name, turns, encoder_of):
    tokenizer, encoder = encoder_of(name)
    template = load_template(template_name, tokenizer)
    rendered = template.render(turns)
    one = encoder.encode([rendered], template.add_special_tokens)[0]
    return tokenizer, encoder, template, rendered, one, answer_labels(one, rendered.answers)


def text_after_anchor(tokenizer, ids):
    """Decode as in mid-sentence: some decoders strip the blank in front of the first word."""
    anchor = tokenizer.convert_tokens_to_ids("x" if "x" in tokenizer.get_vocab() else "a")
    return tokenizer.decode([anchor, *ids], clean_up_tokenization_spaces=False)[1:]


@PROPERTY
@given(question=TEXT, context=TEXT, answer=ANSWER)
@pytest.mark.parametrize("template_name", ["alpaca", "plain"])
@pytest.mark.parametrize("name", TOKENIZERS)
def test_labels_decode_to_the_answer_and_its_end_token(
    name, template_name, question, context, answer, encoder_of
):
    if template_name == "plain" and not (question or context):
        question = "Q"  # with nothing in front, the answer's first token also carries the blank put there
    turns = [Turn("user", question, context), Turn("assistant", answer)]
    tokenizer, _, template, _, one, labels = encoded(name, template_name, turns, encoder_of)
    assert len(labels) == len(one.ids)
    learned = [label for label in labels if label != IGNORE]
    assert text_after_anchor(tokenizer, learned) == answer + template.end_token
    assert all(label in (IGNORE, token) for label, token in zip(labels, one.ids, strict=True))


@PROPERTY
@given(question=TEXT, answer=ANSWER)
@pytest.mark.parametrize("template_name", ["chat", "alpaca", "plain"])
@pytest.mark.parametrize("name", TOKENIZERS[:3])
def test_training_begins_with_the_tokens_of_the_prompt(name, template_name, question, answer, encoder_of):
    turns = [Turn("user", question), Turn("assistant", answer)]
    _, encoder, template, _, one, labels = encoded(name, template_name, turns, encoder_of)
    prompt = encoder.encode_prompt(template.render_prompt(turns[:1]), template.add_special_tokens)
    border = next(i for i, label in enumerate(labels) if label != IGNORE)
    assert one.ids[:border] == prompt


@PROPERTY
@given(talk=st.lists(st.tuples(TEXT, ANSWER), min_size=1, max_size=4))
@pytest.mark.parametrize("name", ["byte_level", "llama_like"])
def test_in_a_conversation_every_answer_is_learned_and_nothing_else(name, talk, encoder_of):
    turns = [turn for q, a in talk for turn in (Turn("user", q), Turn("assistant", a))]
    tokenizer, _, _, rendered, one, labels = encoded(name, "chat", turns, encoder_of)
    learned = text_after_anchor(tokenizer, [label for label in labels if label != IGNORE])
    assert learned == "".join(rendered.text[a:b] for a, b in rendered.answers)
    assert len(learned) == sum(b - a for a, b in rendered.answers)
    if name == "byte_level":
        assert learned == "".join(answer + "<|im_end|>" for _, answer in talk)


@pytest.mark.parametrize(
    ("name", "prompt", "answer", "joint"),
    [
        ("byte_level", "A: ", "Paris", "ĠParis"),  # the blank belongs to the prompt, the token has it too
        ("byte_level", "Response:", ": ok", "::"),
        ("byte_level", "assistant\n", "\n\nok", "ĊĊ"),
        ("llama_like", "Response:", ": ok", "::"),
        ("llama_legacy", "Response:", ": ok", "::"),
        ("llama_legacy", "A: ", "Paris", "▁Paris"),
    ],
)
def test_a_token_across_the_border_is_cut_there(name, prompt, answer, joint, encoder_of):
    tokenizer, encoder = encoder_of(name)
    together = tokenizer.convert_ids_to_tokens(
        tokenizer(prompt + answer, add_special_tokens=False)["input_ids"]
    )
    assert any(joint in token for token in together), "the tokenizer does not merge across this border"
    _, _, _, _, one, labels = encoded(
        name, "plain", [Turn("user", prompt), Turn("assistant", answer)], encoder_of
    )
    learned = [label for label in labels if label != IGNORE]
    assert text_after_anchor(tokenizer, learned) == answer + tokenizer.eos_token
    assert one.ids[: len(one.ids) - len(learned)] == encoder.encode_prompt(prompt, True)


def test_where_nothing_crosses_the_text_is_encoded_jointly(encoder_of):
    turns = [Turn("user", "the quick"), Turn("assistant", " brown fox")]
    tokenizer, _, _, rendered, one, _ = encoded("byte_level", "plain", turns, encoder_of)
    assert one.ids == tokenizer(rendered.text)["input_ids"]


def test_without_a_clean_cut_the_crossing_token_is_learned_whole(byte_level):
    encoder = Encoder(byte_level)
    encoder.guard = None  # a tokenizer after whose every token a blank is put
    rendered = Rendered("A: Paris", answers=[(3, 8)])
    one = encoder.encode([rendered], False)[0]
    learned = [label for label in answer_labels(one, rendered.answers) if label != IGNORE]
    assert byte_level.decode(learned) == " Paris"


@pytest.mark.parametrize(
    ("name", "text", "special", "expected"),
    [
        ("llama_like", "hello", True, 1),
        ("llama_like", "<s>hello", True, 1),
        ("llama_like", "<s>hello", False, 1),
        ("llama_like", "hello", False, 0),
        ("byte_level", "hello", True, 0),
    ],
)
def test_the_begin_token_comes_once(name, text, special, expected, encoder_of):
    tokenizer, encoder = encoder_of(name)
    ids = encoder.encode_prompt(text, special)
    assert (
        ids.count(tokenizer.convert_tokens_to_ids("<s>") if expected or name == "llama_like" else -1)
        == expected
    )


def test_a_tokenizer_that_adds_an_end_token_does_not_double_it(llama_like):
    from tokenizers import processors

    ending = copy.deepcopy(llama_like)
    ending.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    assert ending("a")["input_ids"][-1] == 2
    encoder, template = Encoder(ending), load_template("alpaca", ending)
    rendered = template.render([Turn("user", "q"), Turn("assistant", "a")])
    ids = encoder.encode([rendered], template.add_special_tokens)[0].ids
    assert (ids.count(1), ids.count(2), ids[-1]) == (1, 1, 2)
    assert encoder.encode_prompt(template.render_prompt([Turn("user", "q")]), True)[-1] != 2


def test_truncation_set_elsewhere_does_not_leak_in(byte_level):
    shared = copy.deepcopy(byte_level)
    before = Encoder(shared).identity
    shared(["a b c", "d"], truncation=True, max_length=2, padding=True)
    assert Encoder(shared).identity == before
    assert len(Encoder(shared).encode_prompt("one two three four", True)) > 2


def test_a_tokenizer_without_offsets_is_refused():
    from transformers import ByT5Tokenizer

    with pytest.raises(UserError, match="ByT5Tokenizer of '' reports no character offsets.* Use a fast one"):
        Encoder(ByT5Tokenizer())


@pytest.mark.parametrize("folder", ["stories260k-hf", "mistral-v1-tokenizer"])
def test_real_sentencepiece_models_agree_with_transformers(folder, shared_data):
    from transformers import LlamaTokenizer

    tokenizer = LlamaTokenizer.from_pretrained(
        shared_data / f"models/{folder}", bos_token="<s>", eos_token="</s>"
    )
    encoder, template = Encoder(tokenizer), load_template("alpaca", tokenizer)
    turns = [Turn("user", "Say hello.\n", "  naïve 你好"), Turn("assistant", "Hello, world!\n 你好 :)")]
    rendered = template.render(turns)
    one = encoder.encode([rendered], True)[0]
    assert one.ids == tokenizer(rendered.text)["input_ids"]
    learned = [label for label in answer_labels(one, rendered.answers) if label != IGNORE]
    colon = tokenizer.convert_tokens_to_ids(":")
    assert tokenizer.decode([colon, *learned]) == ":" + turns[1].text + "</s>"
