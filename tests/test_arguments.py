"""What a user may write for a settings dataclass, and what is said when it is wrong."""

import json
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from llama_adapter.arguments import parse
from llama_adapter.errors import UserError
from llama_adapter.yaml_text import read_yaml


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(kw_only=True)
class Source:
    """One source."""

    path: str
    """Where it is."""
    weight: float = 1.0
    """How often it is drawn."""


created = []


@dataclass(kw_only=True)
class Optimiser:
    """How to step."""

    learning_rate: float = 1e-3
    """Size of a step."""
    kind: Literal["adamw", "sgd"] = "adamw"
    """Rule."""
    steps: int = 10
    """Count."""

    def __post_init__(self):
        created.append(self)
        if self.learning_rate < 0:
            raise UserError(f"learning_rate is {self.learning_rate}. Use a positive number.")
        if self.steps < 0:
            raise ValueError(f"steps {self.steps}")


@dataclass(kw_only=True)
class Settings:
    """A run."""

    base: str
    """Folder of the base model."""
    adapter: list[str] = field(default_factory=list)
    """Adapters to load."""
    sources: list[Source] = field(default_factory=list)
    """What to read."""
    optimiser: Optimiser = field(default_factory=Optimiser)
    """How to step."""
    second: Optimiser | None = None
    """Another optimiser."""
    layers: int | list[int] | None = None
    """Which layers."""
    interactive: bool = False
    """Chat."""
    colour: Colour = Colour.RED
    """Of the plot."""
    prompt: str | None = None
    """Text."""


def read(*arguments):
    return parse(Settings, arguments, "program")


def refuse(*arguments):
    with pytest.raises(UserError) as refused:
        read(*arguments)
    return str(refused.value)


@pytest.fixture
def yaml_file(tmp_path):
    def write(text):
        path = tmp_path / "run.yaml"
        path.write_text(text)
        return str(path)

    return write


def test_defaults_stay_and_options_override():
    settings = read("--base", "b", "--optimiser.learning_rate", "1e-2", "--colour", "BLUE")
    assert settings == Settings(base="b", optimiser=Optimiser(learning_rate=1e-2), colour=Colour.BLUE)


def test_yaml_file_comes_first_and_options_win_over_it(yaml_file):
    text = "base: b\noptimiser: {learning_rate: 1e-5, kind: sgd}\nsources:\n- {path: x, weight: 2}\n"
    path = yaml_file(text)
    settings = read(path, "--optimiser.kind", "adamw")
    assert settings.optimiser == Optimiser(learning_rate=1e-5)
    assert settings.sources == [Source(path="x", weight=2.0)]
    assert read("--config", path) == read(path) == read(f"--config={path}")


def test_an_empty_yaml_file_changes_nothing(yaml_file):
    assert read(yaml_file("# nothing yet\n"), "--base", "b") == Settings(base="b")


def test_bare_switch_is_true_and_can_still_be_spelled_out():
    assert read("--base", "b", "--interactive").interactive
    assert read("--interactive", "--base", "b").interactive
    assert not read("--base", "b", "--interactive", "false").interactive


def test_dashes_in_option_names_mean_underscores():
    assert read("--base", "a-b", "--optimiser.learning-rate=1e-2", "--prompt", "a-b").prompt == "a-b"
    assert read("--base", "b", "--optimiser.learning-rate", "1e-2").optimiser.learning_rate == 1e-2


def test_repeated_text_options_become_a_list():
    assert read("--base", "b", "--adapter", "x", "--adapter=name=y").adapter == ["x", "name=y"]
    assert read("--base", "b", "--adapter", '["x", "y"]').adapter == ["x", "y"]


@effort(max_examples=25, deadline=None)
@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn"]), min_size=1), min_size=1, max_size=3
    )
)
def test_any_text_survives_as_a_list_item(texts):
    words = [word for text in texts for word in ("--adapter", f"/{text}")]
    assert read("--base", "b", *words).adapter == [f"/{text}" for text in texts]


PUZZLES = ["- a: b", "12", "true", "[1", "{x}", "a: b: c", "'", "ß→", "a\nb"]


@pytest.mark.parametrize("text", PUZZLES)
def test_a_text_option_takes_what_looks_like_yaml(text):
    assert read("--base", "b", "--prompt", text).prompt == text


def test_a_text_that_yaml_reads_as_a_comment_survives():
    assert read("--base", "b", "--prompt", "# Title").prompt == "# Title"
    assert read("--base", "b", "--prompt=# Title").prompt == "# Title"
    assert read("--base", "# Title", "--adapter", "# Title").adapter == ["# Title"]


def test_settings_are_created_once_and_never_for_help(capsys):
    created.clear()
    with pytest.raises(SystemExit) as left:
        read("--help")
    assert left.value.code == 0
    assert "Size of a step." in capsys.readouterr().out
    assert created == []
    read("--base", "b")
    assert len(created) == 1


WRONG_OPTIONS = [
    (["--optimiser.learning_rate", "fast"], "--optimiser.learning_rate: got 'fast'. Use a number."),
    (["--optimiser.kind", "adam"], "--optimiser.kind: got 'adam'. Use one of adamw, sgd."),
    (["--optimiser.steps", "1.5"], "--optimiser.steps: got '1.5'. Use a whole number."),
    (["--second.learning_rate", "x"], "--second.learning_rate: got 'x'. Use a number."),
    (["--layers", "x"], "--layers: got 'x'. Use a whole number or a list"),
    (["--interactive", "maybe"], "--interactive: got 'maybe'. Use true or false."),
    (["--colour", "green"], "--colour: got 'green'. Use one of RED, BLUE."),
    (["--optimizer.learning_rate", "1"], "Did you mean 'optimiser.learning_rate'?"),
    (["--learning_rate", "1"], "Did you mean 'optimiser.learning_rate'?"),
    (["--second.kin", "sgd"], "Did you mean 'second.kind'?"),
    (["--zzz"], "'--zzz' is not an option. Use one of: adapter, base,"),
    (["stray"], "'stray' is not an option"),
    (["--optimiser.learning_rate", "-1"], "learning_rate is -1.0. Use a positive number."),
    (["--second.learning_rate", "-1"], "learning_rate is -1.0. Use a positive number."),
    (["--optimiser.steps", "-1"], "steps -1. Run with --help"),
]


@pytest.mark.parametrize(("arguments", "said"), WRONG_OPTIONS)
def test_a_wrong_option_is_named_with_what_it_accepts(arguments, said):
    assert said in refuse("--base", "b", *arguments)


def test_a_missing_option_is_named_with_both_ways_to_give_it():
    assert refuse("--interactive") == "Missing: base. Write 'base: ...' in the YAML file or add --base VALUE."


WRONG_FILES = [
    ("base: b\noptimiser:\n  learning_rat: 1\n", "'optimiser.learning_rat' is not a setting. Did you mean"),
    ("base: b\nsources:\n- path: a\n- pth: b\n", "'sources.1.pth' is not a setting. Did you mean 'path'?"),
    (
        "base: b\nsources:\n- a.json\n",
        "'sources.0' is 'a.json'. Use a mapping with some of the keys path, weight.",
    ),
    ("base: b\nsources:\n- path: a\n  weight: q\n", "--sources.0.weight: got 'q'. Use a number."),
    ("base: b\nsources: {path: a}\n", "--sources: got"),
    (
        "base: b\noptimiser: 3\n",
        "'optimiser' is 3. Use a mapping with some of the keys learning_rate, kind, steps.",
    ),
    ("base: b\noptimiser:\n", "'optimiser' has no value."),
    ("optimiser: {}\nbase: null\n", "'base' has no value. Use a text, or remove it."),
    ("1: 2\n", "'1' is not a setting."),
    ("- base\n", "holds a list. Use 'key: value' lines"),
    ("base: [\n", "not valid YAML"),
    ("base: 12\n", "--base: got 12. Use a text."),
]


@pytest.mark.parametrize(("text", "said"), WRONG_FILES)
def test_a_wrong_yaml_file_is_refused_with_its_key(yaml_file, text, said):
    assert said in refuse(yaml_file(text))


def test_unreadable_files_are_named(tmp_path):
    (tmp_path / "latin.yaml").write_bytes(b"base: caf\xe9\n")
    assert "none.yaml: No such file" in refuse("none.yaml")
    assert "Is a directory" in refuse(str(tmp_path))
    assert "latin.yaml: not UTF-8 at byte 9" in refuse(str(tmp_path / "latin.yaml"))


def test_null_is_accepted_where_the_type_allows_it(yaml_file):
    assert read(yaml_file("base: b\nsecond: null\nlayers: null\n")) == Settings(base="b")


def test_read_yaml_reads_short_exponents_as_numbers(yaml_file):
    assert read_yaml(Path(yaml_file("rate: 1e-3\n"))) == {"rate": 0.001}
    assert json.dumps(read_yaml(Path(yaml_file("")))) == "{}"
