"""Pictures with small marks: what is said of them is what is drawn, and our training reads it."""

import json
import random

import numpy as np
import pytest

from llama_adapter.cli import main
from llama_adapter.data import DataConfig, SourceConfig, build_datasets
from llama_adapter.data.config import TaskConfig
from llama_adapter.data.sources import canonical_rows, source_plans
from sphinx_ft.views import ViewConfig, useful_views
from tests.tiny import byte_tokenizer

pytest.importorskip("PIL.Image", reason="pillow is not installed: pip install pillow")


@pytest.fixture
def drawn(example):
    return example("drawn_small_marks")


@pytest.fixture
def written(drawn, tmp_path):
    drawing = drawn.Drawing(output=tmp_path, train=6, val=2, test=2)
    drawn.main(drawing)
    return tmp_path


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_marks_are_where_their_cards_are_in_their_colours(drawn):
    for number in range(8):
        chance = random.Random(number)
        picture, cards = drawn.draw_picture("marks", number, drawn.Drawing(), chance)
        pixels = np.asarray(picture).astype(int)
        for place, card in enumerate(cards):
            left, top, right, bottom = card.box
            assert place * picture.width // 3 <= left < right <= (place + 1) * picture.width // 3
            assert 0 <= top < bottom <= picture.height
            coloured = (abs(pixels - drawn.COLOURS[card.name[0]]).sum(-1) < 30)[
                top + 3 : bottom - 2, left + 3 : right - 2
            ]
            assert coloured.sum() > 40
            assert coloured.sum() == (abs(pixels - drawn.COLOURS[card.name[0]]).sum(-1) < 30).sum()
        assert len({card.name[0] for card in cards}) == len({card.name[1] for card in cards}) == 3


def test_codes_lie_whole_on_their_cards(drawn):
    for number in range(20):
        picture, cards = drawn.draw_picture("codes", number, drawn.Drawing(), random.Random(number))
        dark = np.asarray(picture).max(-1) < 80
        on_cards = np.zeros_like(dark)
        for left, top, right, bottom in (card.box for card in cards):
            assert dark[top + 3 : bottom - 2, left + 3 : right - 2].sum() > 20
            on_cards[top + 3 : bottom - 2, left + 3 : right - 2] = True
        assert not dark[~on_cards].any()


def test_answers_are_those_of_the_cards(drawn):
    for domain in ("marks", "codes"):
        _, cards = drawn.draw_picture(domain, 0, drawn.Drawing(), random.Random(1))
        asked, box = drawn.questions(domain, cards, random.Random(2))
        assert len(asked) == 3
        for row in asked:
            (place,) = [number for number, said in enumerate(drawn.PLACES) if said in row["question"]]
            assert row["answer"] == cards[place].name[row["kind"] in ("shape", "digit")]
        (card,) = [card for card in cards if list(card.box) == box["bbox"]]
        assert all(word in box["question"] for word in card.name)


def test_the_same_seed_draws_the_same_and_splits_differ(drawn, written, tmp_path):
    again = tmp_path / "again"
    drawn.main(drawn.Drawing(output=again, train=6, val=2, test=2))
    for path in sorted(again.rglob("*.png")):
        assert path.read_bytes() == (written / path.relative_to(again)).read_bytes()
    pictures = [path.read_bytes() for path in again.rglob("*.png")]
    assert len(set(pictures)) == len(pictures) == 20


@pytest.mark.parametrize(("ratio", "grid", "skipped"), [(2, 2, 2), (3, 2, 2), (2, 3, 3), (3, 3, 6)])
def test_there_is_something_to_skip(drawn, ratio, grid, skipped):
    width = drawn.Drawing().width
    config = ViewConfig(image_size=448 if grid == 2 else 672, rows=grid, columns=grid, padding="end")
    assert useful_views((width, width // ratio), config).count(False) == skipped


def test_training_reads_the_records(written, tmp_path):
    folder = written / "codes"
    grounding = TaskConfig(name="grounding", padding="end")
    config = DataConfig(
        train=[
            SourceConfig(path=str(folder / "train_vqa.jsonl"), task=TaskConfig(name="vqa")),
            SourceConfig(
                path=str(folder / "train_grounding.jsonl"),
                task=grounding,
                columns={"expression": "question", "box": "bbox"},
            ),
        ],
        template="sphinx",
        media="attach",
        max_length=600,
        cache_dir=str(tmp_path / "cache"),
    )
    rows = build_datasets(config, byte_tokenizer()).train
    assert sorted(set(rows["type"])) == ["grounding", "vqa"]
    assert len(rows) == 24
    assert all(len(media) == 1 for media in rows["media"])


@pytest.mark.parametrize(("padding", "coordinates"), [("centred", "square"), ("end", "square_end")])
def test_answers_that_are_right_score_full_marks(written, tmp_path, padding, coordinates):
    path = written / "marks" / "test_grounding.jsonl"
    source = SourceConfig(
        path=str(path),
        task=TaskConfig(name="grounding", padding=padding),
        columns={"expression": "question", "box": "bbox"},
    )
    answers = [record["turns"][1]["text"] for record in canonical_rows(source_plans(source))]
    said = {row["id"]: f"It is {answer}." for row, answer in zip(rows_of(path), answers, strict=True)}
    (tmp_path / "said.json").write_text(json.dumps(said))
    for right, as_what in ((1.0, coordinates), (0.0, "pixels")):
        scores = tmp_path / "scores.json"
        files = ["--references", str(path), "--predictions", str(tmp_path / "said.json")]
        options = ["--coordinates", as_what, "--output", str(scores)]
        assert main(["evaluate", "refcoco", *files, *options]) == 0
        assert [item["iou"] >= 0.5 for item in rows_of(scores.with_suffix(".items.jsonl"))] == [
            bool(right)
        ] * 2
