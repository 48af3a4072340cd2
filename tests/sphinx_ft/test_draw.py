"""The verb ``draw``: from answers to pictures."""

import json

import numpy as np
import pytest

from llama_adapter.cli import main
from sphinx_ft.drawing import COLOURS

image = pytest.importorskip("PIL.Image", reason="pillow is not installed: pip install pillow")


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "wide.png"
    image.new("RGB", (200, 100), (240, 240, 240)).save(path)
    return str(path)


def edges(path):
    """Left, top, right, bottom of what is drawn in the first colour."""
    rows, columns = np.nonzero((np.asarray(image.open(path)) == COLOURS[0]).all(-1))
    return int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max())


@pytest.mark.parametrize(
    ("options", "box"),
    [
        (["--answer", "[0.10,0.35,0.50,0.65]"], (20, 20, 100, 80)),
        (["--answer", "[0.10,0.10,0.50,0.40]", "--padding", "end"], (20, 20, 100, 80)),
        (["--answer", "[0.1,0.2,0.5,0.8]", "--boxes", "picture"], (20, 20, 100, 80)),
        (["--answer", "at [20, 20, 100, 80] it is", "--boxes", "pixels"], (20, 20, 100, 80)),
    ],
)
def test_boxes_of_every_kind_are_drawn_where_they_belong(picture, tmp_path, options, box):
    out = tmp_path / "out.png"
    answer = [option.replace("at ", "").replace(" it is", "") for option in options]
    assert main(["draw", "--image", picture, "--output", str(out), *answer]) == 0
    assert edges(out) == box


def test_a_file_of_answers(picture, tmp_path, capsys):
    rows = [
        {"image": picture, "answer": "cat [0.10,0.35,0.50,0.65]"},
        {"image": picture, "answer": "I see none."},
    ]
    answers = tmp_path / "answers.jsonl"
    answers.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["draw", "--answers", str(answers), "--output", str(tmp_path / "drawn")]) == 0
    assert "1 boxes and points" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == [
        "00001-wide.png",
        "00002-wide.png",
    ]
    answers.write_text(json.dumps(rows[1]))
    assert main(["draw", "--answers", str(answers), "--output", str(tmp_path / "drawn")]) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--image", "a.png"], "Use --image and"),
        (["--image", "a.png", "--answer", "x", "--answers", "b.jsonl"], "Use --image and"),
        (["--image", "none.png", "--answer", "[0,0,1,1]"], "none.png"),
        (["--image", "PICTURE", "--answer", "[0,0,1,1]", "--grid", "2"], "grid is '2'"),
    ],
)
def test_what_cannot_be_drawn_is_named(picture, tmp_path, capsys, options, message):
    options = [picture if option == "PICTURE" else option for option in options]
    assert main(["draw", "--output", str(tmp_path / "out.png"), *options]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_an_answer_without_a_picture_is_named(tmp_path, capsys):
    (tmp_path / "answers.jsonl").write_text('{"answer": "[0,0,1,1]"}\n')
    assert main(["draw", "--answers", str(tmp_path / "answers.jsonl"), "--output", "drawn"]) == 2
    assert "line 1 has image None" in capsys.readouterr().err
