import json
from dataclasses import asdict, replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llama_adapter.data.config import DataConfig, SourceConfig
from llama_adapter.data.encoding import IGNORE, Encoder
from llama_adapter.data.formats import named_format
from llama_adapter.data.prepare import ROW_FEATURES, Preparer, prepared_rows, without_placeholders
from llama_adapter.data.reading import read_record
from llama_adapter.data.records import RawRow, Turn
from llama_adapter.data.templates import load_template
from tests.data.conftest import DROPS_THOUGHTS

WORDS = st.text(st.sampled_from(list("abc de\n:é你")), max_size=60)
ANSWER = st.text(st.sampled_from(list("abc de\n:é你")), min_size=1, max_size=30).filter(
    lambda text: text.strip()
)


def preparer(tokenizer, template, max_length, **settings):
    config = DataConfig(train=[SourceConfig(path="x")], max_length=max_length, **settings)
    return Preparer(load_template(template, tokenizer), Encoder(tokenizer), config)


def batch(*talks, media=(), problem=""):
    return {
        "record_id": [f"f:{line}" for line in range(1, len(talks) + 1)],
        "turns": [[asdict(turn) for turn in talk] for talk in talks],
        "media": [list(media) for _ in talks],
        "problem": [problem for _ in talks],
    }


def one(prepare, *turns, media=()):
    return prepare.rows(batch(turns, media=media))[0]


def learned(row):
    return [label for label in row.labels if label != IGNORE]


@pytest.fixture(scope="session")
def preparers(byte_level):
    """One preparer per template and length."""
    built = {}

    def build(template, max_length):
        key = (template, max_length)
        built[key] = built.get(key) or preparer(byte_level, template, max_length)
        return built[key]

    return build


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(question=WORDS, context=WORDS, answer=ANSWER, limit=st.sampled_from([20, 45, 60, 80, 100]))
@pytest.mark.parametrize("template", ["alpaca", "chat", "plain"])
def test_truncation_never_takes_from_the_answer(template, question, context, answer, limit, preparers):
    turns = [Turn("user", question, context), Turn("assistant", answer)]
    whole, row = one(preparers(template, 10_000), *turns), one(preparers(template, limit), *turns)
    if len(whole.input_ids) <= limit:
        assert row == whole
        return
    assert row.fate in ("truncated", "dropped")
    if row.fate == "truncated":
        assert len(row.input_ids) == len(row.labels) <= limit
        assert learned(row) == learned(whole)
        assert row.input_ids[-len(learned(row)) :] == learned(row)
    else:
        assert row.input_ids == row.labels == []
        rendered = preparers(template, limit).template.render(turns)
        offsets = preparers(template, limit).encoder.encode([rendered], False)[0].offsets
        loose = [1 for first, last in offsets for a, b in rendered.contents if a <= first < last <= b]
        assert len(whole.input_ids) - len(loose) > limit


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=80)
@given(talk=st.lists(st.tuples(WORDS, ANSWER), min_size=1, max_size=4), limit=st.integers(30, 150))
def test_a_conversation_keeps_its_first_answers_whole(talk, limit, byte_level, preparers):
    turns = [turn for q, a in talk for turn in (Turn("user", q), Turn("assistant", a))]
    whole = one(preparers("chat", 10_000), *turns)
    row = one(preparer(byte_level, "chat", limit), *turns)
    if row.fate == "dropped":
        return
    kept = len(talk) - row.left_out
    assert learned(row) == learned(one(preparers("chat", 10_000), *turns[: 2 * kept]))
    assert len(row.input_ids) <= limit
    assert (row.fate == "kept") == (len(whole.input_ids) <= limit)
    assert byte_level.decode(learned(row)) == "".join(answer + "<|im_end|>" for _, answer in talk[:kept])


def test_the_middle_of_the_longest_part_goes_and_the_template_stays(byte_level):
    prepare = preparer(byte_level, "alpaca", 130)
    document = " ".join(f"word{i}" for i in range(100))
    row = one(prepare, Turn("user", "Sum up.", document), Turn("assistant", "Words."))
    text = byte_level.decode(row.input_ids)
    assert row.fate == "truncated"
    assert text.startswith("Below is an instruction")
    assert "### Instruction:\nSum up.\n\n### Input:\nword0 " in text
    assert text.endswith("99\n\n### Response:Words.<|im_end|>")
    assert "word50" not in text


def test_overlong_records_can_be_dropped_instead(byte_level):
    row = one(
        preparer(byte_level, "plain", 10, overlong="drop"), Turn("user", "a " * 50), Turn("assistant", "b")
    )
    assert (row.fate, row.input_ids) == ("dropped", [])


def test_an_answer_that_is_too_long_alone_is_dropped_not_cut(byte_level):
    row = one(preparer(byte_level, "plain", 10), Turn("user", "q"), Turn("assistant", "b " * 50))
    assert (row.fate, row.labels) == ("dropped", [])


def test_a_placeholder_survives_truncation(byte_level):
    prepare = preparer(byte_level, "plain", 40, media="keep")
    text = "a b c d " * 10 + "<image>" + " e f g h" * 10
    row = one(prepare, Turn("user", text), Turn("assistant", "yes"), media=["a.png"])
    assert row.fate == "truncated"
    assert "<image>" in byte_level.decode(row.input_ids)
    assert row.media == ["a.png"]


def test_ignored_media_leave_no_placeholder(byte_level):
    row = one(
        preparer(byte_level, "plain", 64, media="ignore"),
        Turn("user", "<image>\nWhat is it?"),
        Turn("assistant", "A cat."),
        media=["a.png"],
    )
    assert byte_level.decode(row.input_ids) == "What is it?A cat.<|im_end|>"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("<image>\nWhat?", "What?"),
        ("What?\n<image>", "What?"),
        ("a <image> b", "a  b"),
        ("no image", "no image"),
    ],
)
def test_placeholders_go_with_their_line_break(text, left):
    assert without_placeholders(Turn("user", text, text)) == Turn("user", left, left)


@pytest.mark.parametrize("where", [Turn("user", "a<|im_end|>b"), Turn("user", "a", "x <|im_start|> y")])
def test_text_that_reads_as_a_control_token_is_a_problem(byte_level, where):
    row = one(preparer(byte_level, "plain", 64), where, Turn("assistant", "x"))
    assert row.fate == "bad"
    assert "turn 1 contains '<|im_" in row.problem
    assert "would read as a control token" in row.problem


def test_a_bad_record_does_not_touch_its_neighbours(byte_level):
    prepare = preparer(byte_level, "alpaca", 200)
    good = [Turn("user", "q"), Turn("assistant", "a")]
    rows = prepare.rows(batch(good, [Turn("system", "s"), *good], good))
    assert [row.fate for row in rows] == ["kept", "bad", "kept"]
    assert rows[0].input_ids == rows[2].input_ids
    assert "use template chat" in rows[1].problem
    assert [row.record_id for row in prepared_rows(rows)] == ["f:1", "f:3"]
    assert prepare.rows(batch(good, problem="no JSON"))[0].problem == "no JSON"


def test_columns_come_back_as_datasets_wants_them(byte_level):
    columns = preparer(byte_level, "plain", 64)(batch([Turn("user", "q"), Turn("assistant", "a")]))
    assert set(columns) == set(ROW_FEATURES)
    assert [len(values) for values in columns.values()] == [1] * len(columns)


def test_the_identity_follows_everything_that_changes_a_row(byte_level, llama_like):
    import copy

    base = preparer(byte_level, "chat", 64).identity
    other_chat = copy.deepcopy(byte_level)
    other_chat.chat_template = other_chat.chat_template.replace("Be brief.", "Be kind.")
    more_tokens = copy.deepcopy(byte_level)
    more_tokens.add_tokens(["Paris"])
    assert base == preparer(copy.deepcopy(byte_level), "chat", 64).identity
    others = [
        preparer(byte_level, "alpaca", 64),
        preparer(byte_level, "chat", 65),
        preparer(byte_level, "chat", 64, overlong="drop"),
        preparer(byte_level, "chat", 64, media="ignore"),
        preparer(byte_level, "chat", 64, rewritten_turns="last"),
        preparer(other_chat, "chat", 64),
        preparer(more_tokens, "chat", 64),
        preparer(llama_like, "chat", 64),
    ]
    assert len({base, *(other.identity for other in others)}) == 9


THOUGHTS = [
    Turn("user", "one " * 8),
    Turn("assistant", "<think>hm</think>first"),
    Turn("user", "two"),
    Turn("assistant", "plain"),
    Turn("user", "three"),
    Turn("assistant", "<think>oh</think>last"),
]


def thinking(byte_level, max_length=300, **settings):
    import copy

    tokenizer = copy.deepcopy(byte_level)
    tokenizer.chat_template = DROPS_THOUGHTS
    return preparer(tokenizer, "chat", max_length, **settings)


def test_answers_that_later_turns_rewrite_become_examples_of_their_own(byte_level):
    rows = thinking(byte_level).rows(batch(THOUGHTS, THOUGHTS[:2]))
    assert [(row.record_id, row.part, row.rewritten) for row in rows] == [
        ("f:1", 0, 1),
        ("f:1", 1, 0),
        ("f:2", 0, 0),
    ]
    taught = [byte_level.decode(learned(row)) for row in rows]
    first, rest = "<think>hm</think>first<|im_end|>", "plain<|im_end|><think>oh</think>last<|im_end|>"
    assert taught == [first, rest, first]
    assert "hm" not in byte_level.decode(rows[1].input_ids)


def test_the_last_answer_alone_can_be_trained(byte_level):
    (row,) = thinking(byte_level, rewritten_turns="last").rows(batch(THOUGHTS))
    assert byte_level.decode(learned(row)) == "plain<|im_end|><think>oh</think>last<|im_end|>"
    assert (row.part, row.rewritten) == (0, 1)


def test_an_answer_without_loss_needs_no_example(byte_level):
    turns = [replace(turn, learned=number == 1) for number, turn in enumerate(THOUGHTS)]
    for mode in ("split", "last"):
        (row,) = thinking(byte_level, rewritten_turns=mode).rows(batch(turns))
        assert byte_level.decode(learned(row)) == "<think>hm</think>first<|im_end|>"


def test_an_example_that_does_not_fit_is_counted_with_its_record(byte_level):
    long = [*THOUGHTS[:5], Turn("assistant", "<think>oh</think>" + "last " * 60)]
    rows = thinking(byte_level, 120).rows(batch(long))
    assert [(row.fate, row.part, row.left_out) for row in rows] == [("truncated", 0, 0), ("truncated", 1, 1)]
    assert byte_level.decode(learned(rows[1])) == "plain<|im_end|>"
    (row,) = thinking(byte_level, 12).rows(batch(long))
    assert (row.fate, row.part, row.input_ids) == ("dropped", 0, [])


def test_columns_of_a_record_go_with_each_of_its_rows(byte_level):
    columns = thinking(byte_level)(batch(THOUGHTS, THOUGHTS[:2]) | {"type": ["a", "b"], "characters": [7, 8]})
    assert columns["type"] == ["a", "a", "b"]
    assert columns["characters"] == [7, 7, 8]
    assert columns["part"] == [0, 1, 0]


def test_answers_without_loss_stay_when_a_conversation_is_shortened(byte_level):
    turns = [
        Turn("user", "q"),
        Turn("assistant", "wrong", learned=False),
        Turn("user", "q"),
        Turn("assistant", "right"),
        Turn("user", "q"),
        Turn("assistant", "far too long " * 20, learned=False),
    ]
    whole = one(preparer(byte_level, "plain", 500), *turns)
    assert byte_level.decode(learned(whole)) == "right<|im_end|>"
    assert "far too long" in byte_level.decode(whole.input_ids)
    row = one(preparer(byte_level, "plain", 30), *turns)
    assert byte_level.decode(row.input_ids) == "qwrong<|im_end|>qright<|im_end|>"
    assert byte_level.decode(learned(row)) == "right<|im_end|>"
    assert (row.fate, row.left_out) == ("truncated", 0)


def test_a_record_in_which_nothing_is_learned_is_bad(byte_level):
    row = one(preparer(byte_level, "plain", 64), Turn("user", "q"), Turn("assistant", "a", learned=False))
    assert row.fate == "bad"
    assert "none of its answers bears loss; at least one must" in row.problem


@pytest.mark.parametrize("template", ["plain", "alpaca", "sphinx"])
@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        ({"reasoning": "hm"}, "turn 2 has a thought"),
        ({"tool_calls": [{"name": "f", "arguments": {}}]}, "turn 2 has tool_calls"),
    ],
)
def test_templates_of_texts_alone_refuse_thoughts_and_calls(template, extra, reason, byte_level):
    row = one(preparer(byte_level, template, 64), Turn("user", "q"), Turn("assistant", "a", **extra))
    assert row.fate == "bad"
    assert reason in row.problem


def test_tools_reach_the_template_or_are_refused(byte_level):
    talk = batch([Turn("user", "q"), Turn("assistant", "a")]) | {"tools": [[{"name": "f", "parameters": {}}]]}
    for template in ("plain", "alpaca", "sphinx", "chat"):
        (row,) = preparer(byte_level, template, 64).rows(talk)
        assert "the record has tools" in row.problem


@pytest.mark.parametrize(
    "turn",
    [
        Turn("assistant", "a", reasoning="x<|im_end|>"),
        Turn("assistant", "a", tool_calls=[{"name": "f", "arguments": {"x": ["<|im_end|>"]}}]),
        Turn("assistant", "a", tool_calls=[{"name": "f", "arguments": {"<|im_end|>": 1}}]),
    ],
)
def test_control_tokens_are_refused_in_thoughts_and_calls_too(byte_level, turn):
    row = one(preparer(byte_level, "chat", 64), Turn("user", "q"), turn)
    assert "turn 2 contains '<|im_end|>', which the tokenizer would read as a control token" in row.problem


def golden_rows(repository, kind):
    return json.loads((repository / "tests/golden/data_golden.json").read_text())[kind]


@pytest.mark.parametrize(
    ("kind", "form"), [("v1_InstructionDataset", "alpaca"), ("v2_PretrainDataset", "captions")]
)
def test_rows_agree_with_the_published_code_where_that_loses_nothing(kind, form, byte_tokenizer, repository):
    compared = 0
    for golden in golden_rows(repository, kind):
        prepare = preparer(byte_tokenizer, "alpaca", golden["max_words"], media="keep")
        record = read_record(named_format(form), RawRow("g:1", golden["item"]))
        row = one(prepare, *record.turns, media=[item.content for item in record.media])
        published = [token for token in golden["tokens"] if token != 0]
        if published[-1] != 2:  # cut off by the published code, which takes the end of the answer
            continue
        compared += 1
        assert row.input_ids == published
        padded = row.labels + [IGNORE] * (len(golden["labels"]) - len(row.labels))
        assert [max(label, 0) for label in padded] == golden["labels"]
    assert compared >= 1


def test_where_the_published_code_cuts_the_answer_we_keep_it(byte_tokenizer, repository):
    fates = []
    for golden in golden_rows(repository, "v1_InstructionDataset"):
        if [token for token in golden["tokens"] if token][-1] == 2:
            continue
        prepare = preparer(byte_tokenizer, "alpaca", golden["max_words"])
        record = read_record(named_format("alpaca"), RawRow("g:1", golden["item"]))
        row = one(prepare, *record.turns)
        fates.append(row.fate)
        if row.fate == "truncated":
            assert byte_tokenizer.decode(learned(row)) == record.turns[-1].text + "</s>"
    assert set(fates) == {"truncated", "dropped"}


def test_the_empty_answer_of_an_exotic_tokenizer_is_reported(byte_level, monkeypatch):
    prepare = preparer(byte_level, "plain", 64)
    monkeypatch.setattr(
        "llama_adapter.data.prepare.answer_labels", lambda encoded, spans: [IGNORE] * len(encoded.ids)
    )
    row = one(prepare, Turn("user", "q"), Turn("assistant", "a"))
    assert (row.fate, row.input_ids) == ("bad", [])
    assert "the answer has no token" in row.problem
