"""What a settings dataclass accepts, read from its annotations alone."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_adapter.errors import UserError
from llama_adapter.schema import check_keys, check_option, describe_type, option_types, suggest


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(kw_only=True)
class Part:
    kind: str
    rank: int = 8


@dataclass(kw_only=True)
class Prompts:
    length: int = 10
    parts: list[Part | str] | None = None


@dataclass(kw_only=True)
class LowRank:
    rank: int = 4


@dataclass(kw_only=True)
class Settings:
    adapter: Prompts | LowRank
    only: Prompts = field(default_factory=Prompts)
    maybe: LowRank | None = None
    many: list[LowRank] = field(default_factory=list)
    free: dict[str, Any] | LowRank = field(default_factory=dict)
    either: LowRank | int = 3
    text: str = ""


def refusal(content):
    with pytest.raises(UserError) as refused:
        check_keys(content, Settings)
    return str(refused.value)


def test_options_descend_into_single_groups_only():
    assert set(option_types(Settings)) == {
        "adapter", "only.length", "only.parts", "maybe.rank", "many", "free", "either", "text",
    }  # fmt: skip
    deep = option_types(Settings, deep=True)
    assert {"adapter.length", "adapter.rank", "many.rank", "only.parts.kind"} <= set(deep)
    assert deep["only.parts.rank"] is int


GOOD = [
    {"adapter": {"length": 3}},
    {"adapter": {"rank": 3}},
    {"adapter": {"class_path": "peft.LoraConfig", "init_args": {"r": 8}}},
    {"only": {"parts": ["bias", {"kind": "lora", "rank": 2}]}},
    {"only": {"parts": None}, "maybe": None},
    {"free": {"anything": {"goes": 1}}},
    {"either": 5},
    {"many": []},
]


@pytest.mark.parametrize("content", GOOD, ids=str)
def test_what_the_annotations_allow_passes(content):
    check_keys(content, Settings)


BAD = [
    ({"adapter": {"lenth": 3}}, "'adapter.lenth' is not a setting. Did you mean 'length'?"),
    ({"only": {"parts": [{"kin": "x"}]}}, "'only.parts.0.kin' is not a setting. Did you mean 'kind'?"),
    ({"only": {"parts": [3]}}, "'only.parts.0' is 3. Use a mapping with some of the keys kind, rank."),
    ({"many": [{}, {"r": 1}]}, "'many.1.r' is not a setting."),
    ({"many": {"r": 1}}, "'many.r' is not a setting."),
    ({"only": None}, "'only' has no value. Use a Prompts, or remove it."),
    ({"only": []}, "'only' is []. Use a mapping with some of the keys length, parts."),
    ({"text": None}, "'text' has no value. Use a text, or remove it."),
    ({"either": "x"}, "'either' is 'x'. Use a mapping with some of the keys rank."),
    ({3: 4}, "'3' is not a setting. Use one of: adapter, either, free"),
]


@pytest.mark.parametrize(("content", "said"), BAD, ids=[str(content) for content, _ in BAD])
def test_anything_else_is_named_with_its_place(content, said):
    assert said in refusal(content)


@given(st.dictionaries(st.text(max_size=8), st.integers(), min_size=1, max_size=3))
def test_unknown_keys_never_pass(content):
    if set(content) - {"rank"}:
        with pytest.raises(UserError, match="is not a setting"):
            check_keys(content, LowRank)


@pytest.mark.parametrize(
    "name",
    ["text", "only", "only.length", "adapter", "adapter.rank", "adapter.class_path", "adapter.init_args.r",
     "free.a.b", "many.help", "maybe.rank"],
)  # fmt: skip
def test_options_groups_and_keys_of_free_mappings_are_accepted(name):
    check_option(name, Settings)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("adapter.lenth", "adapter.length"),
        ("only.lengths", "only.length"),
        ("txet", "text"),
        ("maybe.rang", "maybe.rank"),
        ("length", "adapter.length"),
    ],
)
def test_unknown_options_suggest_the_nearest(name, near):
    with pytest.raises(UserError, match=f"'--{name}' is not an option. Did you mean '{near}'?"):
        check_option(name, Settings)


def test_suggest_lists_everything_when_nothing_is_near():
    assert suggest("zzz", ["b", "a"]) == "Use one of: a, b."


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (float | None, "a number or null"),
        (list[int], "a list, each item a whole number"),
        (Literal["a", 1], "one of a, 1"),
        (Colour, "one of RED, BLUE"),
        (Part, "a Part"),
        (dict[str, int], "dict[str, int]"),
    ],
)
def test_describe_type_says_what_to_write(hint, words):
    assert describe_type(hint) == words
