import io
import json
import sys

import pytest
from rich.console import Console

from llama_adapter.demo.answers import Answers
from llama_adapter.demo.report import Outcome, command_name, commands, score_table, show_examples, to_json
from llama_adapter.demo.run import DemoConfig
from llama_adapter.demo.task import NEW_PHRASING, SEEN_PHRASING, make_task


@pytest.fixture
def outcome(tmp_path):
    """A made-up run: nothing right before; after, all seen phrasings and half of the new ones."""
    held_out = make_task(0, 8, 16).held_out
    before = {part: ["[bold]what?[/bold]"] * len(items) for part, items in held_out.items()}
    after = {part: [item.answer for item in items] for part, items in held_out.items()}
    after[NEW_PHRASING][:4] = ["[red]no[/red]"] * 4
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_model.safetensors").write_bytes(b"x" * 2**20)
    return Outcome(
        config=DemoConfig(output_dir=str(tmp_path)),
        before=Answers(items=held_out, outputs=before, seconds=1.0),
        after=Answers(items=held_out, outputs=after, seconds=1.0),
        log=[
            {"step": 5, "loss": 2.0, "tokens_per_second": 90.0},
            {"step": 10, "loss": 1.0, "tokens_per_second": 95.0},
            {"step": 10, "train_loss": 1.5, "tokens_per_second": 100.0, "peak_memory_gib": 2.5},
        ],
        gates=[[0.1, 0.2]],
        parameters=(10, 1000),
        seconds={"answers_before": 1.0, "training": 5.0, "answers_after": 1.0, "total": 7.0},
    )


def rendered(show):
    console = Console(width=120, record=True, file=io.StringIO())
    show(console)
    return console.export_text()


def test_json_has_the_figures_by_part_and_over_all(outcome):
    content = json.loads(json.dumps(to_json(outcome)))
    assert (content["exact_match_before"], content["exact_match_after"]) == (0.0, 0.75)
    assert content["parts"][SEEN_PHRASING]["exact_match_after"] == 1.0
    assert content["parts"][NEW_PHRASING]["exact_match_after"] == 0.5
    assert content["loss"] == [{"step": 5, "loss": 2.0}, {"step": 10, "loss": 1.0}]
    assert (content["tokens_per_second"], content["peak_memory_gib"]) == (100.0, 2.5)
    assert content["adapter_bytes"] == 2**20
    assert {"torch", "transformers", "peft", "python"} <= set(content["versions"])


def test_table_shows_the_same_figures(outcome):
    text = rendered(lambda console: console.print(score_table(outcome)))
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if "│" in line]
    assert [row[1:] for row in rows] == [["8", "0 %", "100 %"], ["8", "0 %", "50 %"], ["16", "0 %", "75 %"]]


def test_examples_are_shown_right_or_wrong_and_are_no_markup(outcome):
    text = rendered(lambda console: show_examples(outcome, console))
    examples = outcome.examples()
    assert len({json.loads(example["right"])["action"] for example in examples}) == len(examples) == 3
    for example in examples:
        assert example["request"] in text
        wrong = example["after"] != example["right"]
        assert (f"right   {example['right']}" in text) == wrong
    assert "[bold]what?[/bold]" in text
    assert "[red]no[/red]" in text


def test_commands_name_what_was_saved_and_quote_spaces(outcome, tmp_path):
    outcome.config.base, outcome.config.dtype = "my models/base", "bfloat16"
    first, second, *_ = commands(outcome)
    base = "--base 'my models/base' --dtype bfloat16"
    assert f"generate {base} --adapter {tmp_path / 'adapter'} --prompt " in first
    assert "--adapter" not in second


def test_the_program_is_called_as_it_can_be_called_from_here(tmp_path, tmp_path_factory, monkeypatch):
    folder = tmp_path / ".venv" / "bin"
    folder.mkdir(parents=True)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", str(folder / "python"))
        patch.setenv("PATH", "/nowhere")
        assert command_name() == f"{folder / 'python'} -m llama_adapter"
        script = folder / "llama-adapter"
        script.write_text("#!/bin/sh\n")
        script.chmod(0o755)
        patch.chdir(tmp_path)
        assert command_name() == ".venv/bin/llama-adapter"
        patch.chdir(tmp_path_factory.mktemp("elsewhere"))
        assert command_name() == str(script)
        patch.setenv("PATH", str(folder))
        assert command_name() == "llama-adapter"
