import importlib
import json
import subprocess
import sys

import pytest

from llama_adapter.cli import main
from llama_adapter.errors import UserError


def test_questions_are_written_to_ask_a_model(save, tmp_path, capsys):
    references = save(
        "r.json", [{"id": "a", "question": "What colour?", "answers": ["red"], "image": "a.jpg"}]
    )
    out = tmp_path / "questions.jsonl"
    assert main(["evaluate", "vqa", "--references", references, "--questions", str(out)]) == 0
    (row,) = map(json.loads, out.read_text().splitlines())
    assert row["id"] == "a"
    assert row["prompt"] == "What colour?\nAnswer the question using a single word or phrase."
    assert row["image"] == "a.jpg"
    assert "1 questions in" in capsys.readouterr().out


def test_scoring_loads_no_torch(save, repository):
    references, predictions = save("r.json", [{"id": "a", "answers": ["red"]}]), save("p.json", {"a": "red"})
    script = f"""
import sys
from llama_adapter.cli import main
code = main(["evaluate", "choice", "--references", {references!r}, "--predictions", {predictions!r}])
heavy = {{"torch", "transformers", "peft", "datasets"}} & set(sys.modules)
sys.exit(f"imported {{heavy}}" if heavy else code)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=repository
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "None of predictions, base, adapter and questions is set. Use --predictions FILE"),
        ({"predictions": "p", "base": "b"}, "Answers would come from predictions and base. Use either"),
        ({"predictions": "p", "adapter": "a"}, "Answers would come from predictions and adapter."),
        ({"model": "m", "base": "b"}, "model is 'm', which chooses from a file of predictions."),
        ({"limit": 0, "base": "b"}, "--limit: got '0'. Use 1 or more"),
        ({"max_new_tokens": 0, "base": "b"}, "--max_new_tokens: got '0'. Use 1 or more"),
    ],
)
def test_answers_have_one_source(save, refused, options, said):
    references = save("r.json", [{"id": "a", "answers": ["red"]}])
    assert said in refused("vqa", references=references, **options)


@pytest.mark.parametrize("task", ["vqa", "choice", "anls", "relaxed"])
def test_a_limit_takes_the_first_questions(save, evaluate, task):
    references = save("r.json", [{"id": n, "answers": ["1"] * 10} for n in range(5)])
    predictions = save("p.json", {"0": "1", "1": "1", "2": "2", "3": "2", "4": "2"})
    found, items, printed = evaluate(task, references=references, predictions=predictions, limit=2)
    assert [item["id"] for item in items] == ["0", "1"]
    assert next(iter(found["scores"].values())) == (1 if task == "anls" else 100)
    assert "3 predictions belong to no question here" in printed


def test_missing_predictions_are_an_error_or_wrong(save, refused, evaluate):
    references = save("r.json", [{"id": "a", "answers": ["red"]}, {"id": "b", "answers": ["red"]}])
    predictions = save("p.json", {"a": "red"})
    assert "'b'" in refused("vqa", references=references, predictions=predictions)
    found, _, printed = evaluate("vqa", references=references, predictions=predictions, missing="wrong")
    assert found["scores"]["all"] == 50
    assert "1 questions without a prediction count as wrong." in printed


def test_without_the_harness_its_pip_line_is_said(monkeypatch):
    for name in ("lm_eval", "lm_eval.api.registry"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "llama_adapter.evaluation.lm_harness", raising=False)
    with pytest.raises(UserError, match=r"Run: pip install 'llama-adapter\[eval-harness\]'"):
        importlib.import_module("llama_adapter.evaluation.lm_harness")


def test_a_task_is_the_second_word(refused, capsys):
    assert "'evaluate' has a task as its second word, but got 'no task'. Use one of: scienceqa" in refused("")
    assert "Did you mean 'scienceqa'?" in refused("sciencqa")
    assert main(["evaluate", "--help"]) == 0
    assert "evaluate coco-caption" in capsys.readouterr().out
