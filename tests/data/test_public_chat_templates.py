"""The chat templates that trl carries, over many kinds of conversations, beside ``apply_chat_template``."""

import copy
import importlib.util
import os.path
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llama_adapter.data.chat_template import ChatTemplate
from llama_adapter.data.config import DataConfig, SourceConfig
from llama_adapter.data.encoding import IGNORE, Encoder
from llama_adapter.data.prepare import Preparer
from llama_adapter.data.records import RecordProblem, Turn

FILES = {
    path.stem: path
    for place in importlib.util.find_spec("trl").submodule_search_locations
    for path in sorted(Path(place, "chat_templates").glob("*.jinja"))
}
TOKENS = re.compile(
    r"<turn\|>|<\|turn>|<\|/?[a-zA-Z_0-9]+\|?>|<[a-z_]+\|>|<end_of_[a-z]+>|<start_of_turn>|</s>|\[/?[A-Z_]+\]|<｜[^｜<]+｜>"
)
ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "adds",
        "parameters": {"type": "object", "properties": {"x": {"type": "integer", "description": "a number"}}},
    },
}
CALL = {
    "type": "function",
    "id": "call12345",
    "function": {"name": "add", "arguments": {"x": 22, "y": "two"}},
}


def user(text):
    return Turn("user", text)


def answer(text, **more):
    return Turn("assistant", text, **more)


HELLO, SUM = [user("Hi there."), answer("Hello!")], [user("What is 2+2?"), answer("It is 4.")]
CALLED = [
    user("What is 22+2?"),
    answer("", tool_calls=[CALL]),
    Turn("tool", "Twenty-four", name="add", tool_call_id="call12345"),
    answer("It is 24."),
]
TALKS = {
    "one answer": HELLO,
    "system": [Turn("system", "Be terse."), *HELLO],
    "two answers": [*HELLO, *SUM],
    "system, two answers": [Turn("system", "Be terse."), *HELLO, *SUM],
    "three answers": [*HELLO, *SUM, user("Sure?"), answer("Quite.")],
    "thought in the text": [user("What is 2+2?"), answer("<think>\nadd up\n</think>\n\nIt is 4.")],
    "thoughts in the texts": [
        user("Hi"),
        answer("<think>\ngreet\n</think>\n\nHello."),
        user("What is 2+2?"),
        answer("<think>\nadd up\n</think>\n\nIt is 4."),
    ],
    "thought": [user("What is 2+2?"), answer("It is 4.", reasoning="add up")],
    "thoughts": [
        user("Hi"),
        answer("Hello.", reasoning="greet"),
        user("2+2?"),
        answer("4.", reasoning="add"),
    ],
    "white space": [user(" Hi there. \n"), answer(" Hello! \n")],
    "two questions": [user("Hi"), user("there"), answer("Hello!")],
    "answers in a row": [user("Hi"), answer("Hello!"), answer("More.")],
    "code": [user("code"), answer("```python\ndef f():\n    return 1\n```\n")],
    "call and result": CALLED,
    "calls with thoughts": [
        CALLED[0],
        answer("", tool_calls=[CALL], reasoning="I call"),
        CALLED[2],
        answer("It is 24.", reasoning="I read"),
    ],
    "without loss": [user("Hi there."), answer("WRONG!", learned=False), *SUM],
}


PLAIN = ["one answer", "system", "two answers", "system, two answers", "three answers", "white space", "code"]


@pytest.fixture(scope="module")
def load(byte_level):
    """A tokenizer with the tokens of a template, and the template; each is made once."""
    made = {}

    def build(name):
        if name not in made:
            tokenizer, text = copy.deepcopy(byte_level), FILES[name].read_text()
            special = sorted({*TOKENS.findall(text), "<s>"} - {"<think>", "</think>"})
            tokenizer.add_special_tokens({"bos_token": "<s>", "additional_special_tokens": special})
            tokenizer.chat_template = text
            made[name] = tokenizer, ChatTemplate(tokenizer)
        return made[name]

    return build


def messages(turns, parts):
    keys = {"reasoning": "reasoning_content", "tool_calls": "tool_calls", "name": "name"}
    keys["tool_call_id"] = "tool_call_id"
    return [
        {"role": turn.role, "content": [{"type": "text", "text": turn.text}] if parts else turn.text}
        | {key: getattr(turn, name) for name, key in keys.items() if getattr(turn, name)}
        for turn in turns
    ]


class Oracle:
    """What the tokenizer itself makes of a conversation, and whether that holds all that was said."""

    def __init__(self, tokenizer):
        self.tokenizer, self.parts = tokenizer, False
        self.parts = "Hello!" not in (self.text(HELLO) or "")
        prompt, text = self.text(HELLO[:1], prompt=True), self.text(HELLO)
        self.surplus = prompt[len(os.path.commonprefix([prompt, text])) :]

    def text(self, turns, tools=None, prompt=False):
        try:
            return self.tokenizer.apply_chat_template(
                messages(turns, self.parts), tools=tools, tokenize=False, add_generation_prompt=prompt
            )
        except Exception:
            return None

    def prompt(self, turns, tools=None):
        text = self.text(turns, tools, prompt=True)
        return None if text is None else text.removesuffix(self.surplus)

    def usable(self, turns, tools=None):
        """Whether every answer with loss stands, whole, behind its prompt."""
        whole = self.text(turns, tools)
        if whole is None or any(t.text.strip() not in whole for t in turns if t.role != "assistant"):
            return False
        if tools and "add" not in self.text(turns[:1], tools):
            return False
        return all(
            self.usable_answer(turns[: number + 1], tools)
            for number, turn in enumerate(turns)
            if turn.role == "assistant" and turn.learned
        )

    def usable_answer(self, turns, tools):
        text, prompt = self.text(turns, tools), self.prompt(turns[:-1], tools)
        if text is None or prompt is None or not text.startswith(prompt):
            return False
        wanted = [*re.split("</?think>", turns[-1].text), turns[-1].reasoning]
        wanted += ["add", "22", "two"] if turns[-1].tool_calls else []
        return all(part.strip() in text[len(prompt) :] for part in wanted)


@pytest.mark.parametrize("name", FILES)
def test_a_template_is_followed_to_the_character_or_says_which_turn_it_cannot_write(name, load):
    tokenizer, template = load(name)
    oracle = Oracle(tokenizer)
    for kind, turns in TALKS.items():
        tools = [ADD] if "call" in kind else None
        if not oracle.usable(turns, tools):
            with pytest.raises(RecordProblem, match=r"turn [1-6] \(|has tools"):
                template.render(turns, tools or ())
            continue
        rendered = template.render(turns, tools or ())
        whole = oracle.text(turns, tools)
        assert begins_alike(rendered.text, whole), kind
        learned = [n for n, turn in enumerate(turns) if turn.role == "assistant" and turn.learned]
        assert learned == sorted([*rendered.rewritten, *labelled(turns, rendered)]), kind
        for number, (start, end) in zip(labelled(turns, rendered), rendered.answers, strict=True):
            assert rendered.text[:start] == oracle.prompt(turns[:number], tools)
            assert rendered.text[:start] == template.render_prompt(turns[:number], tools or ())
            last = re.split("</?think>", turns[number].text)[-1].strip()
            assert last in rendered.text[start:end], kind
            closed = end not in rendered.open_ends
            assert closed == any(rendered.text[start:end].endswith(t) for t in tokenizer.all_special_tokens)
        contents = [rendered.text[a:b] for a, b in rendered.contents]
        assert contents == sorted(contents, key=whole.index)
        assert {t.strip() for t in contents} <= {t.text.strip() for t in turns if t.role != "assistant"}


def labelled(turns, rendered):
    """The turns whose labels are in a text."""
    learned = [n for n, turn in enumerate(turns) if turn.role == "assistant" and turn.learned]
    return [number for number in learned if number not in rendered.rewritten]


@pytest.mark.parametrize("name", FILES)
def test_plain_conversations_are_refused_only_where_the_template_itself_refuses(name, load):
    tokenizer, template = load(name)
    oracle = Oracle(tokenizer)
    for kind in PLAIN:
        if oracle.text(TALKS[kind]) is None:
            with pytest.raises(
                RecordProblem, match="refuses turn 1 .system.*put its text into the first user turn"
            ):
                template.render(TALKS[kind])
        else:
            assert template.render(TALKS[kind]).answers


SOME = [
    "qwen3",
    "qwen3_6",
    "deepseek_r1_distill",
    "gptoss",
    "glm4moe",
    "gemma3",
    "llama3_1",
    "phi3",
    "idefics3",
]
TEXT = st.text(st.sampled_from(list("abc de\n:é你\"'<>/{}")), max_size=20)
SAID = TEXT.filter(str.strip)
ROUNDS = st.lists(st.tuples(SAID, SAID, st.booleans()), min_size=1, max_size=4)


@settings(suppress_health_check=list(HealthCheck), deadline=None, max_examples=25)
@given(rounds=ROUNDS, system=st.one_of(st.none(), SAID), mode=st.sampled_from(["split", "last"]))
@pytest.mark.parametrize("name", SOME)
def test_every_answer_of_a_random_conversation_is_learned_once(name, rounds, system, mode, load):
    tokenizer, template = load(name)
    turns = [Turn("system", system)] if system else []
    turns += [t for ask, said, learned in rounds for t in (user(ask), answer(said, learned=learned))]
    oracle = Oracle(tokenizer)
    config = DataConfig(train=[SourceConfig(path="x")], max_length=10_000, rewritten_turns=mode)
    record = {"record_id": ["f:1"], "problem": [""], "media": [[]]}
    rows = Preparer(template, Encoder(tokenizer), config).rows(record | {"turns": [[vars(t) for t in turns]]})
    learned = [number for number, turn in enumerate(turns) if turn.role == "assistant" and turn.learned]
    if not learned:
        assert "none of its answers bears loss" in rows[0].problem
        return
    wholes = [oracle.text(turns[: number + 1]) or "" for number in range(len(turns))]
    taught = []
    for row in rows:
        text = tokenizer.decode(row.input_ids)
        assert any(begins_alike(text, whole) for whole in wholes if whole)
        runs = labelled_runs(row, tokenizer)
        taught += runs
        assert all(any(run.endswith(token) for token in tokenizer.all_special_tokens) for run in runs)
    missing = rows[0].rewritten if mode == "last" else 0
    assert len(taught) == len(learned) - missing
    assert len(rows) == 1 or mode == "split"
    if missing == 0:
        for number, run in zip(learned, taught, strict=True):
            assert begins_alike(run, wholes[number][len(oracle.prompt(turns[:number])) :])


def begins_alike(text, written):
    """Whether a text is what a template writes, up to what follows an end token or to one that it lacks."""
    return written.startswith(text) or text.startswith(written.rstrip())


def labelled_runs(row, tokenizer):
    """The answers of a row: its runs of tokens with loss, as text."""
    runs, before = [], IGNORE
    for label in row.labels:
        if label != IGNORE:
            runs += [[]] if before == IGNORE else []
            runs[-1].append(label)
        before = label
    return [tokenizer.decode(run) for run in runs]
