"""Values are checked by type and limit before anything is made, and named with their place."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated, Any, ClassVar, Literal

import pytest

from llama_adapter.errors import UserError
from llama_adapter.limits import INTERVAL, Count, Limit, PartOf, Rate, Seed, Share, at_least, one_of
from llama_adapter.values import check_ranges, missing_options, read_values


class Colour(Enum):
    RED = "red"


@dataclass(kw_only=True)
class Prompts:
    length: Count = 10
    kind: Literal["head", "scalar"] = "head"


@dataclass(kw_only=True)
class LowRank:
    rank: int = 4
    places: list[str] | str | None = None


@dataclass(kw_only=True)
class Settings:
    LIMITS: ClassVar[dict[str, Limit]] = {
        "steps": INTERVAL,
        "adapter.rank": at_least(1),
        "name": one_of("ab"),
    }

    base: str
    adapter: Prompts | LowRank | None = None
    rate: Rate = 0.1
    share: Share = 0.5
    part: PartOf | None = None
    seed: Seed = 0
    steps: float = 500.0
    name: str = "a"
    either: int | list[int] | None = None
    flag: bool | Literal["auto"] = False
    colour: Colour | str = "red"
    many: list[Prompts] = field(default_factory=list)
    odd: Annotated[int, Limit(lambda value: value % 2 == 1, "an odd number")] = 1
    free: dict[str, Any] = field(default_factory=dict)
    anything: Any = None


def refusal(content):
    with pytest.raises(UserError) as refused:
        read_values(content, Settings)
    return str(refused.value)


BAD = [
    ({"rate": -1}, "--rate: got -1. Use a number from 0 on."),
    ({"rate": float("nan")}, "--rate: got nan. Use a finite number."),
    ({"rate": "1e999"}, "--rate: got '1e999'. Use a finite number."),
    ({"seed": 2**32}, "--seed: got 4294967296. Use a whole number from 0 to 4294967295."),
    ({"seed": 10**40}, "Use a number below 2^63."),
    ({"seed": True}, "--seed: got True."),
    ({"seed": 1.0}, "--seed: got 1.0."),
    ({"share": 1.5}, "Use a number from 0 to 1."),
    ({"part": 0}, "--part: got 0. Use a share above 0 and up to 1 or null."),
    ({"steps": 0}, "--steps: got 0. Use a whole number of steps, or a share"),
    ({"steps": 1.5}, "--steps: got 1.5. Use a whole number of steps"),
    ({"name": "c"}, "--name: got 'c'. Use one of a, b."),
    ({"adapter": {"rank": 0}}, "--adapter.rank: got 0. Use 1 or more."),
    ({"adapter": {"length": 0}}, "--adapter.length: got 0. Use 1 or more."),
    ({"adapter": {"length": 3, "rank": 3}}, "'adapter' has the keys length, rank, which no kind"),
    ({"adapter": {"class_path": "os.path.join"}}, "'adapter.class_path' is 'os.path.join', which is no"),
    ({"adapter": {"class_path": "this.Zen"}}, "is no registered kind"),
    ({"adapter": {"class_path": 3}}, "is no registered kind"),
    ({"adapter": {"class_path": "LowRank", "init_args": 3}}, "Use a mapping init_args"),
    ({"adapter": {"class_path": "LowRank", "rank": 3}}, "['rank'] beside it"),
    ({"adapter": {"class_path": "LowRank", "init_args": {"length": 3}}}, "is no setting of LowRank"),
    ({"many": [{"length": 1}, {"length": -1}]}, "--many.1.length: got -1. Use 1 or more."),
    ({"many": {"length": 1}}, "--many: got"),
    ({"odd": 2}, "--odd: got 2. Use an odd number."),
    ({"flag": "perhaps"}, "--flag: got 'perhaps'. Use true or false or one of auto."),
    ({"free": {"class_path": "os.system"}}, "where no class can stand"),
    ({"anything": [{"x": {"class_path": "os.system"}}]}, "where no class can stand"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "said"), BAD, ids=[str(content)[:50] for content, _ in BAD])
def test_a_value_beyond_its_limits_is_named_with_what_is_accepted(content, said):
    assert said in refusal(content)


def test_texts_of_the_command_line_become_values():
    read = read_values(
        {"rate": "1e-3", "either": "[1, 2]", "part": "null", "flag": "no", "steps": "10", "base": "12"},
        Settings,
    )
    assert read == {"rate": 1e-3, "either": [1, 2], "part": None, "flag": False, "steps": 10.0, "base": "12"}
    assert read_values({"flag": "auto", "colour": "blue"}, Settings) == {"flag": "auto", "colour": "blue"}


def test_a_class_is_taken_by_name_where_it_is_loaded_already():
    read = read_values({"adapter": {"class_path": "LowRank", "init_args": {"rank": "3"}}}, Settings)
    assert read["adapter"]["init_args"] == {"rank": 3}
    assert read["adapter"]["class_path"].endswith("LowRank")


def test_what_is_missing_is_named():
    assert missing_options({"adapter": {}}, Settings) == ["base"]
    assert missing_options({"base": "x"}, Settings) == []


def test_programs_get_the_same_ranges():
    with pytest.raises(UserError, match=r"share is 3\.0\. Use a number from 0 to 1"):
        check_ranges(Settings(base="x", share=3.0))
    with pytest.raises(UserError, match="name is 'c'. Use one of a, b"):
        check_ranges(Settings(base="x", name="c"))
    check_ranges(Settings(base="x"))
