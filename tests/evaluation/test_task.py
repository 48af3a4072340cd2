import json
import subprocess
import sys

from llama_adapter.cli import main


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


def test_something_must_be_asked_for(save, refused):
    references = save("r.json", [{"id": "a", "answers": ["red"]}])
    said = refused("vqa", references=references)
    assert "Neither predictions nor questions is set. Use --predictions FILE" in said


def test_missing_predictions_are_an_error_or_wrong(save, refused, evaluate):
    references = save("r.json", [{"id": "a", "answers": ["red"]}, {"id": "b", "answers": ["red"]}])
    predictions = save("p.json", {"a": "red"})
    assert "'b'" in refused("vqa", references=references, predictions=predictions)
    found, _, printed = evaluate("vqa", references=references, predictions=predictions, missing="wrong")
    assert found["scores"]["all"] == 50
    assert "1 questions without a prediction count as wrong." in printed


def test_a_task_is_the_second_word(refused, capsys):
    assert "'evaluate' has a task as its second word, but got 'no task'. Use one of: scienceqa" in refused("")
    assert "Did you mean 'scienceqa'?" in refused("sciencqa")
    assert main(["evaluate", "--help"]) == 0
    assert "evaluate coco-caption" in capsys.readouterr().out
