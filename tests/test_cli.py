"""The program as a user meets it: what it prints, how it leaves, what it imports."""

import subprocess
import sys
from dataclasses import dataclass

import pytest

from llama_adapter import cli
from llama_adapter.cli import VERBS, Verb, find_verb, known_verbs, load_verb, main, select
from llama_adapter.errors import UserError

SETTINGS_MODULE = """
from dataclasses import dataclass
from llama_adapter import UserError

@dataclass(kw_only=True)
class Greeting:
    '''What to say.'''
    name: str
    '''To whom.'''
    times: int = 1
    '''How often.'''

def greet(settings: Greeting) -> int | None:
    if settings.name == "nobody":
        raise UserError("name is 'nobody'. Give somebody's name.")
    if settings.name == "crash":
        raise RuntimeError("out of words")
    if settings.name == "stop":
        raise KeyboardInterrupt
    print("hello " * settings.times + settings.name)
    return 3 if settings.name == "three" else None

def untyped(settings):
    pass
"""

ENTRY_POINTS = """[llama_adapter.verbs]
greet = greeter:greet
broken = no_such_module:run
untyped = greeter:untyped
train = greeter:greet
"""


def run(*arguments, **options):
    """The program in a process of its own."""
    command = [sys.executable, "-m", "llama_adapter", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)


@pytest.fixture
def third_party(tmp_path, monkeypatch):
    """An installed distribution that adds verbs."""
    (tmp_path / "greeter.py").write_text(SETTINGS_MODULE)
    metadata = tmp_path / "greeter-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: greeter\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("greeter", None)


def test_overview_lists_every_verb_without_importing_torch(repository):
    script = """
import sys
from llama_adapter.cli import main
code = main(["--help"])
heavy = {"torch", "transformers", "peft", "datasets"} & set(sys.modules)
sys.exit(f"imported {heavy}" if heavy else code)
"""
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=repository)
    assert result.returncode == 0, result.stderr
    for verb in VERBS:
        assert verb.name in result.stdout


def test_no_verb_prints_the_overview_and_fails(capsys):
    assert main([]) == 2
    assert "generate" in capsys.readouterr().out


def test_version_is_printed(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("llama-adapter ")


def test_unknown_verb_suggests_the_nearest(capsys):
    assert main(["trian"]) == 2
    assert "'trian' is not a verb. Did you mean 'train'?" in capsys.readouterr().err
    assert main(["xyzzy"]) == 2
    verbs = "demo, train, generate, generate-image, convert, merge, draw, mix, validate-data, plan, evaluate"
    assert f"Use one of: {verbs}, cache." in capsys.readouterr().err


def test_third_party_verbs_run_with_options(third_party, capsys):
    assert main(["greet", "--name", "Ada", "--times", "2"]) == 0
    assert capsys.readouterr().out == "hello hello Ada\n"
    assert main(["greet", "--name", "three"]) == 3
    assert main(["greet", "--help"]) == 0
    assert "How often." in capsys.readouterr().out


def test_third_party_verb_is_listed_with_its_package_but_never_replaces_a_built_in(third_party, capsys):
    assert main(["--help"]) == 0
    assert "from the package greeter" in capsys.readouterr().out
    assert find_verb("train") in VERBS


def test_third_party_verb_that_cannot_be_loaded_names_the_package(third_party, capsys):
    assert main(["broken"]) == 2
    said = "'broken' (from the package greeter) cannot be loaded from 'no_such_module:run'"
    assert said in capsys.readouterr().err
    assert main(["untyped"]) == 2
    assert "must take one argument, a typed dataclass" in capsys.readouterr().err


def test_wrong_input_is_one_message_and_debug_shows_the_traceback(third_party, capsys):
    assert main(["greet", "--name", "nobody"]) == 2
    error = capsys.readouterr().err
    assert error == "llama-adapter: name is 'nobody'. Give somebody's name.\n"
    assert main(["greet", "--name", "nobody", "--debug"]) == 2
    error = capsys.readouterr().err
    assert "Traceback" in error
    assert error.endswith("name is 'nobody'. Give somebody's name.\n")


def test_wrong_option_is_refused_before_the_verb_runs(third_party, capsys):
    assert main(["greet", "--name", "Ada", "--times", "often"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "--times: got 'often'. Use a whole number." in captured.err


def test_interruption_is_a_clean_line_and_130(third_party, capsys):
    assert main(["greet", "--name", "stop"]) == 130
    assert capsys.readouterr().err.strip() == "llama-adapter: interrupted."


def test_any_other_exception_leaves_with_1_and_its_traceback(third_party, tmp_path):
    result = run("greet", "--name", "crash", env={"PYTHONPATH": f"{tmp_path}:{_package_parent()}"})
    assert result.returncode == 1
    assert "RuntimeError: out of words" in result.stderr
    with pytest.raises(RuntimeError, match="out of words"):
        main(["greet", "--name", "crash"])


def test_exit_code_and_streams_of_the_real_program():
    result = run("generat", env={"PYTHONPATH": _package_parent()})
    assert (result.returncode, result.stdout) == (2, "")
    said = (
        "llama-adapter: 'generat' is not a verb. Did you mean 'generate'? Run 'llama-adapter --help' for all."
    )
    assert result.stderr.strip() == said


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_every_built_in_verb_loads_and_explains_itself(verb, capsys):
    function, settings = load_verb(verb)
    assert callable(function)
    assert settings.__doc__
    assert main([*verb.name.split(), "--help"]) == 0
    assert f"usage: llama-adapter {verb.name} [CONFIG.yaml" in capsys.readouterr().out


def test_a_task_is_found_by_two_words_and_what_follows_is_left():
    verb, rest = select(["evaluate", "vqa", "--references", "x"])
    assert (verb.name, rest) == ("evaluate vqa", ["--references", "x"])
    assert select(["train", "x.yaml"]) == (find_verb("train"), ["x.yaml"])


def test_third_parties_add_tasks_with_a_dot(third_party, tmp_path, capsys):
    (tmp_path / "greeter-1.0.dist-info/entry_points.txt").write_text(
        "[llama_adapter.verbs]\nevaluate.greet = greeter:greet\n"
    )
    assert main(["evaluate", "greet", "--name", "Ada"]) == 0
    assert capsys.readouterr().out == "hello Ada\n"


def test_a_broken_built_in_verb_is_a_bug_not_wrong_input(monkeypatch):
    broken = Verb("broken", "llama_adapter.no_such_module:run", "")
    monkeypatch.setattr(cli, "VERBS", (broken,))
    assert known_verbs()["broken"] == broken
    with pytest.raises(ModuleNotFoundError):
        main(["broken"])


def test_a_verb_with_two_arguments_is_refused(monkeypatch):
    @dataclass
    class Empty:
        pass

    def two(first: Empty, second: Empty) -> None: ...

    monkeypatch.setattr(cli, "two", two, raising=False)
    with pytest.raises(UserError, match="one argument"):
        load_verb(Verb("two", "llama_adapter.cli:two", ""))


def _package_parent():
    """Where the package under test was imported from."""
    from pathlib import Path

    return str(Path(cli.__file__).parent.parent)
