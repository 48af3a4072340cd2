"""The comparison with litgpt: both programs are asked the same, and what they found decides the rows."""

import json
import os
import stat
import sys

import pytest

from benchmarks import litgpt_adapter
from benchmarks.litgpt_adapter import CLEARED, SHIPPED, run
from benchmarks.method_comparison import own_step
from benchmarks.page import render
from benchmarks.results import read, write
from llama_adapter.errors import UserError

# stands in for an environment with litgpt: writes figures in the format of litgpt_step
STAND_IN = """#!{python}
import json, pathlib, sys
words = sys.argv[1:]
option = lambda name: words[words.index(name) + 1]
with pathlib.Path({log!r}).open("a") as log:
    log.write(json.dumps(words) + "\\n")
trains = "--clear-cache" in words
figures = {{
    "seconds": [100.0, 200.0, 900.0] if trains else [100.0, 100.0, 900.0],
    "versions": {{"litgpt": "0.0", "torch": "0.1"}},
    "error": "second backward" if "--no-validation" in words else "",
    "tensors": {{"prompts": 2, "gates": 2}},
    "with gradient": {{"prompts": 2 * trains, "gates": 2}},
    "moved": {{"prompts": 2 * trains, "gates": 2}},
}}
pathlib.Path(option("--output")).write_text(json.dumps(figures))
"""


@pytest.fixture
def stand_in(tmp_path):
    path = tmp_path / "python"
    path.write_text(STAND_IN.format(python=sys.executable, log=str(tmp_path / "log.jsonl")))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def own_figures(folder, base, steps=2):
    output = folder / "own.json"
    sizes = ["--steps", str(steps), "--rows", "2", "--tokens", "8", "--prompts", "3", "--threads", "1"]
    own_step.main(["--base", str(base), "--output", str(output), *sizes])
    return json.loads(output.read_text())


def test_our_prompts_train_after_a_validation(tmp_path, tiny_base):
    found = own_figures(tmp_path, tiny_base)
    assert found["tensors"] == found["with gradient"] == found["moved"] == {"prompts": 2, "gates": 2}
    assert len(found["seconds"]) == 2
    assert min(found["seconds"]) > 0


def test_rows_are_made_of_what_the_programs_found(tmp_path, tiny_base, stand_in, monkeypatch):
    figures = own_figures(tmp_path, tiny_base) | {"seconds": [50.0]}
    execute = litgpt_adapter.execute
    monkeypatch.setattr(
        litgpt_adapter,
        "execute",
        lambda command: figures if command[0] == sys.executable else execute(command),
    )
    monkeypatch.setenv(litgpt_adapter.VARIABLE, str(stand_in))
    shipped, cleared, reach = run(3, 5, tiny_base, steps=3)
    assert (shipped.against, shipped.value, shipped.pairs) == (SHIPPED, 2.0, 3)
    assert (cleared.against, cleared.value, cleared.low) == (CLEARED, 4.0, 4.0)
    assert shipped.facts["its environment"] == "litgpt 0.0 torch 0.1"
    assert reach.value == 0
    assert reach.facts["ours"] == "2 of 2"
    assert reach.facts["its gates"] == "2 of 2"
    assert reach.facts["without a validation first"] == "second backward"
    write("litgpt_adapter", [shipped, cleared, reach], tmp_path / "results")
    assert SHIPPED in render(read(tmp_path / "results"))
    asked = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert len(asked) == 3 * 2 + 1
    assert all(words[:2] == ["-m", "benchmarks.method_comparison.litgpt_step"] for words in asked)
    assert all(str(tiny_base) in words and words[words.index("--steps") + 1] == "3" for words in asked)


def test_without_the_environment_it_says_how_to_make_one(monkeypatch):
    monkeypatch.delenv(litgpt_adapter.VARIABLE, raising=False)
    with pytest.raises(UserError, match=r"LLAMA_ADAPTER_LITGPT is not set\. Set it to .*pip install litgpt"):
        run()


def test_a_program_that_fails_is_quoted(tiny_base):
    with pytest.raises(UserError, match=r"ended with 1: .*No module named.*Set LLAMA_ADAPTER_LITGPT"):
        litgpt_adapter.execute([sys.executable, "-m", "benchmarks.no_such_program"])


@pytest.mark.skipif(
    litgpt_adapter.VARIABLE not in os.environ, reason="LLAMA_ADAPTER_LITGPT names no Python with litgpt"
)
def test_litgpt_itself_runs(tiny_base):
    sizes = json.dumps(
        {"n_layer": 2, "n_embd": 64, "n_head": 4, "n_query_groups": 2, "intermediate_size": 96}
    )
    command = [os.environ[litgpt_adapter.VARIABLE], "-m", "benchmarks.method_comparison.litgpt_step"]
    found = litgpt_adapter.execute(
        [*command, "--base", str(tiny_base), "--steps", "2", "--shape", sizes, "--clear-cache"]
    )
    assert found["tensors"] == found["with gradient"] == {"prompts": 2, "gates": 2}
    assert len(found["seconds"]) == 2
