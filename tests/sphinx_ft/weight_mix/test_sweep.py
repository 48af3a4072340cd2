"""A sweep over beta."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from llama_adapter.cli import main
from sphinx_ft import sweep_beta
from sphinx_ft.weight_mix.sweep import draw_curve


@pytest.fixture
def two(tmp_path):
    for place, name in enumerate(("b", "a")):
        (tmp_path / name).mkdir()
        save_file({"w": torch.full((2,), float(place))}, tmp_path / name / "model.safetensors")
    return tmp_path / "a", tmp_path / "b"


def test_every_mixture_is_seen_and_removed(two, tmp_path):
    seen = []

    def evaluate(folder):
        seen.append(folder)
        return {"w": load_file(folder / "model.safetensors")["w"][0].item()}

    points = sweep_beta(two, [0.0, 0.25, 1.0], evaluate, work=tmp_path)
    assert [(point.beta, point.scores["w"]) for point in points] == [(0.0, 0.0), (0.25, 0.25), (1.0, 1.0)]
    assert not any(folder.exists() for folder in seen)
    draw_curve(points, ("a", "b"), tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_from_the_command_line(tiny_base, tmp_path, capsys):
    records = [
        {"id": str(place), "question": f"Say {word}", "answers": [word]} for place, word in enumerate("ab")
    ]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, records)))
    evaluations = ["--evaluate", f"choice --references {tmp_path / 'q.jsonl'} --max-new-tokens 2"]
    words = ["mix", str(tiny_base), str(tiny_base), "--betas", "[0,1]", "--output", str(tmp_path / "out")]
    assert main([*words, *evaluations]) == 0, capsys.readouterr().err
    found = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert [point["beta"] for point in found["points"]] == [0.0, 1.0]
    assert found["points"][0]["scores"].keys() == found["points"][1]["scores"].keys() != set()
    assert (tmp_path / "out" / "sweep.png").is_file()
    assert main([*words, "--evaluate", "choice --nothing 1", "--overwrite", "true"]) == 2
    assert "nothing" in capsys.readouterr().err
