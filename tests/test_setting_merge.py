"""What is given later is merged into what was given before, or replaces it."""

from dataclasses import dataclass, field

import pytest

from llama_adapter.setting_merge import merge, set_option


@dataclass(kw_only=True)
class Prompts:
    length: int = 10
    layers: int = 3


@dataclass(kw_only=True)
class LowRank:
    rank: int = 4
    targets: list[str] = field(default_factory=list)


@dataclass(kw_only=True)
class Settings:
    adapter: Prompts | LowRank | None = None
    prompts: Prompts = field(default_factory=Prompts)
    sources: list[Prompts] = field(default_factory=list)
    free: dict[str, int] = field(default_factory=dict)


FILE = {"adapter": {"length": 6, "layers": 2}, "sources": [{"length": 1}], "free": {"a": 1}}
NAMED = {"adapter": {"class_path": "LowRank", "init_args": {"rank": 8, "targets": ["q"]}}}

ONE = {"class_path": "LowRank", "init_args": {"rank": 1}}
CHANGED = {"class_path": "LowRank", "init_args": {"rank": "1", "targets": ["q"]}}

OPTIONS = [
    (FILE, "adapter", "{length: 4}", {"length": 4, "layers": 2}),
    (FILE, "adapter", "{rank: 4}", {"rank": 4}),
    (FILE, "adapter", "null", None),
    (FILE, "adapter.length", "4", {"length": "4", "layers": 2}),
    (FILE, "adapter", "{class_path: LowRank, init_args: {rank: 1}}", ONE),
    (FILE, "adapter.class_path", "LowRank", {"class_path": "LowRank"}),
    (NAMED, "adapter", "{rank: 1}", {"class_path": "LowRank", "init_args": {"rank": 1, "targets": ["q"]}}),
    (NAMED, "adapter.rank", "1", CHANGED),
    (NAMED, "adapter.init_args.rank", "1", CHANGED),
    (NAMED, "adapter", "{length: 3}", {"length": 3}),
    (FILE, "free.b", "2", {"a": 1, "b": 2}),
    (FILE, "sources", "[{length: 2}]", [{"length": 2}]),
    (FILE, "sources+", "{length: 2}", [{"length": 1}, {"length": 2}]),
]  # fmt: skip


@pytest.mark.parametrize(("before", "name", "value", "after"), OPTIONS)
def test_an_option_merges_into_its_kind_and_replaces_another(before, name, value, after):
    content = dict(before)
    set_option(content, name, value, Settings)
    assert content[name.partition(".")[0].removesuffix("+")] == after


def test_a_second_file_merges_key_by_key():
    content = {"prompts": {"length": 1, "layers": 2}, **FILE}
    merge(content, {"prompts": {"length": 5}, "adapter": {"rank": 1}}, Settings)
    assert content["prompts"] == {"length": 5, "layers": 2}
    assert content["adapter"] == {"rank": 1}
