import json

import pytest

from llama_adapter.cli import main
from llama_adapter.evaluation.scienceqa.task import SPLIT_SIZES


def row(pid, **changes):
    content = {
        "pid": pid,
        "question": "Which?",
        "choices": ["a", "b"],
        "answer": 1,
        "hint": "",
        "image": None,
    }
    return content | {"subject": "natural science", "grade": "grade7"} | changes


@pytest.fixture
def problems(save):
    return save(
        "problems.jsonl",
        [
            row("1", hint="h", image="1.jpg"),
            row("2", subject="social science", grade="grade2"),
            row("3", subject="language science", hint="h"),
            row("4", image="4.jpg", grade="grade6"),
        ],
    )


def test_classes_count_what_belongs_to_them(problems, save, evaluate):
    predictions = save("p.json", {"1": "The answer is B.", "2": "A", "3": 1, "4": "(B)"})
    found, items, printed = evaluate("scienceqa", problems=problems, predictions=predictions)
    expected = {"NAT": 100, "SOC": 0, "LAN": 100, "TXT": 100, "IMG": 100, "NO": 0, "G1-6": 50, "G7-12": 100}
    assert found["scores"] == expected | {"questions here": 75}
    assert found["counts"]["TXT"] == found["counts"]["IMG"] == 2
    assert items[0]["classes"] == ["NAT", "TXT", "IMG", "G7-12"]
    assert "4 of the split's 4,241 questions are here" in printed
    assert "TOT" not in found["scores"]


def test_the_average_of_a_whole_split_is_called_tot(problems, save, evaluate, monkeypatch):
    monkeypatch.setitem(SPLIT_SIZES, "test", 4)
    predictions = save("p.json", {"1": "B", "2": "B", "3": "B", "4": "A"})
    found, _, printed = evaluate("scienceqa", problems=problems, predictions=predictions)
    assert found["scores"]["TOT"] == 75
    assert "no TOT" not in printed
    found, _, _ = evaluate("scienceqa", problems=problems, predictions=predictions, only="TXT")
    assert "TOT" not in found["scores"]


def test_unread_answers_are_counted_and_drawn_only_when_asked(problems, save, evaluate):
    predictions = save("p.json", {"1": "hm", "2": "no", "3": "?", "4": 9})
    found, items, printed = evaluate("scienceqa", problems=problems, predictions=predictions)
    assert found["scores"]["questions here"] == 0
    assert found["settings"]["unread"] == 4
    assert items[0]["read"] is items[0]["chosen"] is None
    assert "4 of 4 answers name no single option and count as wrong." in printed
    drawn = []
    for seed in range(12):
        found, items, _ = evaluate("scienceqa", problems=problems, predictions=predictions, guess_unread=seed)
        assert items[0]["read"] is None
        assert items[0]["chosen"] in ("A", "B")
        drawn.append(found["scores"]["questions here"])
    again, _, _ = evaluate("scienceqa", problems=problems, predictions=predictions, guess_unread=3)
    assert again["scores"]["questions here"] == drawn[3]
    assert 0 < sum(drawn) / len(drawn) < 100


def test_one_class_alone(problems, save, evaluate, refused):
    predictions = save("p.json", {"1": "B", "4": "A"})
    found, _, _ = evaluate("scienceqa", problems=problems, predictions=predictions, only="IMG")
    assert found["scores"]["questions here"] == found["scores"]["IMG"] == 50
    assert "only is 'PIC'. Use one of NAT" in refused(
        "scienceqa", problems=problems, predictions=predictions, only="PIC"
    )


def test_questions_with_captions_are_written(problems, save, tmp_path):
    out, captions = tmp_path / "q.jsonl", save("c.json", {"captions": {"1": "A cat."}})
    words = ["--problems", problems, "--captions", captions, "--questions", str(out)]
    assert main(["evaluate", "scienceqa", *words]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert rows[0]["prompt"] == "Context: h A cat.\nQuestion: Which?\nOptions: (A) a (B) b\nAnswer:"
    assert rows[0]["options"] == ["a", "b"]
    assert rows[0]["image"].endswith("1.jpg")


@pytest.mark.parametrize(
    ("model", "img", "correct", "stated"),
    [
        ("gpt3_cot_ale_2shot", "67.43", 1360, "published_overall 75.17"),
        ("llava_13b_v0", "88.00", 1775, "published_overall 90.92"),
    ],
)
def test_published_answers_give_the_published_accuracy(shared_data, evaluate, model, img, correct, stated):
    folder = shared_data / "scienceqa"
    found, items, printed = evaluate(
        "scienceqa",
        problems=folder / "test_img_2017.jsonl",
        splits=folder / "pid_splits.json",
        predictions=folder / "published_predictions_test4241.json",
        model=model,
    )
    assert f"{found['scores']['IMG']:.2f}" == img
    assert (found["correct"]["IMG"], found["counts"]["IMG"], len(items)) == (correct, 2017, 2017)
    assert stated in printed.replace("\n", " ")


def test_published_sentences_are_read_like_the_published_indices(shared_data, save, evaluate):
    folder = shared_data / "scienceqa"
    published = json.loads((folder / "published_predictions_test4241.json").read_text())["llava_13b_v0"]
    predictions = save("p.json", published["last_sentence"])
    found, items, _ = evaluate("scienceqa", problems=folder / "test_img_2017.jsonl", predictions=predictions)
    assert [item["read"] for item in items] == ["ABCDE"[published["results"][item["id"]]] for item in items]
    assert found["settings"]["unread"] == 0
