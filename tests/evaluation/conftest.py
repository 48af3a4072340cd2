"""What the tests of evaluation share: the command line, small files, the golden cases."""

import json

import pytest

from llama_adapter.cli import main


@pytest.fixture
def save(tmp_path):
    """Writes a value as JSON, or a list as lines where the name ends in .jsonl; returns the path as text."""

    def write(name, value):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = "\n".join(map(json.dumps, value)) if name.endswith(".jsonl") else json.dumps(value)
        path.write_text(text)
        return str(path)

    return write


@pytest.fixture
def evaluate(tmp_path, capsys):
    """Runs `evaluate TASK`; gives the scores as written, the items, and what was printed."""

    def run(task, **options):
        output = tmp_path / "out" / "scores.json"
        words = [
            word for key, value in options.items() for word in (f"--{key.replace('_', '-')}", str(value))
        ]
        code = main(["evaluate", task, *words, "--output", str(output)])
        captured = capsys.readouterr()
        assert code == 0, captured.err
        items = output.with_suffix(".items.jsonl").read_text().splitlines()
        return json.loads(output.read_text()), [json.loads(line) for line in items], captured.out

    return run


@pytest.fixture
def refused(capsys):
    """Runs `evaluate TASK`, which must be wrong input; gives the message."""

    def run(task, **options):
        words = [
            word for key, value in options.items() for word in (f"--{key.replace('_', '-')}", str(value))
        ]
        assert main(["evaluate", *task.split(), *words]) == 2
        return capsys.readouterr().err

    return run


@pytest.fixture(scope="session")
def golden(repository):
    """Cases that LLaMA2-Accessory's evaluation code was run on."""
    return json.loads((repository / "tests/golden/eval_metrics_golden.json").read_text())
