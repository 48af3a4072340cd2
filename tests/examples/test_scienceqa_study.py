"""The ScienceQA study on a few made-up questions and a tiny model; it goes on where it stopped."""

import json
from collections import Counter

import pytest

image_module = pytest.importorskip("PIL.Image", reason="pillow is not installed: pip install pillow")


@pytest.fixture
def module(example):
    return example("scienceqa_study")


@pytest.fixture
def problems(tmp_path):
    rows = []
    for number in range(40):
        file = tmp_path / f"{number}.png"
        image_module.new("RGB", (40, 40), (6 * number, 90, 120)).save(file)
        row = {
            "pid": str(number),
            "question": f"Which is {number // 2}?",
            "choices": ["this", "that", "none"],
        }
        rows.append({**row, "answer": number % 3, "hint": "", "image": file.name})
    path = tmp_path / "problems.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_every_arm_gets_a_line_and_is_not_run_again(module, problems, tiny_base, random_encoder, capsys):
    settings = {"problems": str(problems), "base": str(tiny_base), "weights": random_encoder, "width": 32}
    small = {"seeds": 1, "epochs": 1.0, "limit": 4, "prompt_length": 2, "prompt_layers": 1}
    small |= {"max_length": 256, "score": "both"}  # a character is a token here
    arms = ["untouched", "text", "image, random gates"]
    study = module.Study(**settings, **small, arms=arms)
    module.main(study)
    rows = module.read_results(study.output_dir / "results.jsonl")
    assert [row["arm"] for row in rows] == arms
    for row in rows:
        assert row["questions"] == 4
        assert set(row["accuracy"]) == {"written", "likelihood", "likelihood_per_character"}
        assert all(0 <= part["all"] <= 1 for part in row["accuracy"].values())
    (adapter,) = (study.output_dir / "fold-0").glob("image-random-gates-0-*/adapter")
    assert (adapter / "conditioner.safetensors").is_file()

    with (study.output_dir / "results.jsonl").open("a") as lines:
        lines.write('{"key": "cut o')  # as a run that was killed may leave it
    module.main(study)
    assert module.read_results(study.output_dir / "results.jsonl") == rows
    assert "image, random gates" in capsys.readouterr().out


def test_folds_are_even_and_hold_each_question_once(module):
    counts = Counter(module.fold_of(str(number)) for number in range(21208))
    assert set(counts) == set(range(module.FOLDS))
    assert max(counts.values()) < 1.1 * min(counts.values())


def test_questions_with_known_words_are_told_apart(module, problems, tmp_path):
    study = module.Study(problems=str(problems))
    read = module.read_problems([study.problems], "test")
    fold = module.make_fold(read, 0, study)
    assert {problem.id for problem in fold.held_out} | {problem.id for problem in fold.training} == {
        str(number) for number in range(40)
    }
    partners = {str(int(problem.id) ^ 1) for problem in fold.training}
    assert fold.repeated == {problem.id for problem in fold.held_out} & partners
    items = [{"id": problem.id, "correct": problem.id in fold.repeated} for problem in fold.held_out]
    assert module.accuracies(items, fold.repeated)["new"] in (0, None)
    first = json.loads((fold.folder / "train.jsonl").read_text().splitlines()[0])
    assert first["completion"] == fold.training[0].choices[fold.training[0].answer]


@pytest.mark.parametrize(("values", "shown"), [([0.5], "50.0"), ([0.5, 0.6], "55.0 ± 7.1"), ([None], "-")])
def test_spread(module, values, shown):
    assert module.spread(values) == shown


def test_an_unknown_arm_is_named(module):
    with pytest.raises(module.UserError, match="arms names 'txt'.*untouched"):
        module.Study(problems="p.jsonl", arms=["txt"])
