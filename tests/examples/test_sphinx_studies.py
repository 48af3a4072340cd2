"""The studies of resolution and of mixed weights, in small: what they ask, train, mix and report."""

import json
import shutil

import pytest

pytest.importorskip("PIL.Image", reason="pillow is not installed: pip install pillow")
pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install 'llama-adapter[demo]'")

ARM = "5 views, skip tokens"


@pytest.fixture
def study(example, monkeypatch, random_encoder):
    """The study's module, with an encoder of random weights."""
    module = example("sphinx_resolution")
    monkeypatch.setattr(module, "DEFAULT_FILE", random_encoder)
    return module


@pytest.fixture
def pictures(example, tmp_path):
    drawn = example("drawn_small_marks")
    settings = {"train": 4, "val": 1, "test": 2, "width": 216, "cards": 1, "mark": 8}
    drawn.main(drawn.Drawing(output=tmp_path / "pictures", **settings))
    return tmp_path / "pictures"


def settings(pictures, base, folder):
    """Of a study that takes two steps."""
    few = {"layers": 1, "rows_per_step": 2, "logging_steps": 1}
    return {"pictures": pictures, "base": str(base), "output_dir": folder, **few}


def test_a_record_holds_every_question_about_a_picture(study, pictures, tmp_path):
    made = study.Study(pictures=pictures, output_dir=tmp_path)
    (tmp_path / "marks").mkdir()
    rows = [json.loads(line) for line in study.write_dialogs(made, "test").read_text().splitlines()]
    assert len(rows) == 2
    for row in rows:
        said = [turn["value"].removeprefix("<image>\n") for turn in row["conversations"]]
        assert said == [text for one in row["asked"] for text in (one["question"], one["answer"])]
        assert {one["kind"] for one in row["asked"]} == {"colour", "shape"}


def test_an_arm_is_trained_asked_and_timed(study, pictures, tmp_path, tiny_base):
    folder = tmp_path / "runs"
    made = study.Study(arms=[ARM], **settings(pictures, tiny_base, folder))
    study.main(made)
    results = study.results_in(folder / "marks" / "results.json")
    (name,) = results
    assert name == f"{ARM}, seed 0"
    assert set(results[name]["accuracy"]) == {"colour", "shape", "all"}
    assert 0 < results[name]["tokens_per_image"] < 5 * 51  # two of five views are padding, or more
    assert results[name]["steps"] == 2
    assert (folder / "marks" / "resolution.png").stat().st_size > 5000
    study.main(study.Study(arms=[ARM], timing_rounds=2, **settings(pictures, tiny_base, folder)))
    timed = study.results_in(folder / "marks" / "results.json")[name]
    low, high = timed["fastest_and_slowest"]
    assert 0 < low <= timed["seconds_per_step"] <= high
    assert timed["accuracy"] == results[name]["accuracy"]


def test_parents_of_an_ancestor_are_mixed_and_asked(study, example, monkeypatch, tmp_path, tiny_base):
    drawn = example("drawn_small_marks")
    drawing = {"train": 2, "val": 1, "test": 1, "width": 216, "cards": 1, "mark": 8}
    drawn.main(drawn.Drawing(output=tmp_path / "pictures", domains=["marks", "signs"], **drawing))
    mix = example("sphinx_weight_mix")
    monkeypatch.setattr(mix, "DEFAULT_FILE", study.DEFAULT_FILE)
    small = settings(tmp_path / "pictures", tiny_base, tmp_path / "runs")
    monkeypatch.setattr(mix, "Study", lambda **given: study.Study(**{**small, **given}))
    mix.main(pictures=tmp_path / "pictures", betas=[0.0, 1.0], output_dir=tmp_path / "runs")
    results = json.loads((tmp_path / "runs" / "results.json").read_text())
    assert set(results["ancestor"]) == {"marks", "signs", "mean"}
    assert list(results["betas"]) == ["0.0", "1.0"]
    assert (tmp_path / "runs" / "weight_mix.png").is_file()
    shutil.rmtree(tmp_path / "runs")
