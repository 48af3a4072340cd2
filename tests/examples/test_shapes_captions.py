"""The captioning study on a few pictures and a tiny model, from drawing to the sheet."""

import json
from pathlib import Path

import pytest

from llama_adapter.cli import main as program

pytest.importorskip(
    "pycocoevalcap", reason="pycocoevalcap is not installed: pip install 'llama-adapter[eval]'"
)
pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install 'llama-adapter[demo]'")


def test_it_runs_from_drawing_to_scores(example, tiny_base, random_encoder, capsys):
    module = example("shapes_captions")
    study = module.Study(
        base=str(tiny_base),
        weights=random_encoder,
        training_scenes=6,
        test_scenes=9,
        epochs=1.0,
        rows_per_step=3,
        prompts=2,
        width=32,
        depth=1,
    )
    module.main(study)
    results = json.loads((study.output_dir / "results.json").read_text())
    assert set(results) == {"before", "greedy", "beam"}
    assert {"CIDEr", "BLEU-4", "count", "colours", "position", "all"} <= set(results["greedy"]["unseen"])
    assert (study.output_dir / "new.png").stat().st_size < 200_000

    # what it wrote is what `evaluate` reads, with the same scores
    files = ["--references", f"{study.output_dir}/new.references.json"]
    files += ["--predictions", f"{study.output_dir}/new.greedy.json"]
    options = ["--java_scores", "false", "--output", "scores.json"]
    assert program(["evaluate", "coco-caption", *files, *options]) == 0
    scores = json.loads(Path("scores.json").read_text())["scores"]
    assert scores["CIDEr"] == pytest.approx(results["greedy"]["new"]["CIDEr"], abs=1e-4)


def test_exact_captions_score_full_marks(example, random_encoder):
    module = example("shapes_captions")
    study = module.Study(training_scenes=4, test_scenes=9, weights=random_encoder)
    test = module.prepare(study)["unseen"]
    found = module.score({key: scene.captions[2] for key, scene in test.scenes.items()}, test)
    assert found["all"] == 1
    assert found["BLEU-4"] == pytest.approx(1)
