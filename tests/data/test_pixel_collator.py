"""Batches whose pictures are read when they are needed."""

import pytest
import torch
from PIL import Image

from llama_adapter.data.feature_collator import PixelCollator
from llama_adapter.data.images import read_image
from llama_adapter.errors import UserError


@pytest.fixture
def collate():
    def pixels(paths):
        return torch.stack(
            [torch.full((3, 2, 2), float(read_image(path).getpixel((0, 0))[0])) for path in paths]
        )

    return PixelCollator(lambda rows: {"media": 1, "ids": [row["record_id"] for row in rows]}, pixels)


def rows(tmp_path, *values):
    for value in filter(None, values):
        Image.new("RGB", (4, 4), (value, 0, 0)).save(tmp_path / f"{value}.png")
    return [
        {"record_id": str(number), "media": [] if value is None else [str(tmp_path / f"{value}.png")]}
        for number, value in enumerate(values)
    ]


def test_pixels_are_those_of_the_rows_that_have_an_image(collate, tmp_path):
    batch = collate(rows(tmp_path, 7, None, 9))
    assert batch["has_image"].tolist() == [True, False, True]
    assert batch["pixel_values"][:, 0, 0, 0].tolist() == [7.0, 9.0]
    assert batch["ids"] == ["0", "1", "2"]
    assert "media" not in batch


def test_a_batch_of_text_has_no_pixels(collate, tmp_path):
    assert collate(rows(tmp_path, None, None)) == {"ids": ["0", "1"]}


def test_a_damaged_picture_is_named(collate, tmp_path):
    given = rows(tmp_path, 7)
    (tmp_path / "7.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    with pytest.raises(UserError, match=r"7\.png' cannot be read as an image"):
        collate(given)


def test_several_images_are_refused(collate):
    with pytest.raises(UserError, match="r1 names 2 media"):
        collate([{"record_id": "r1", "media": ["a.png", "b.png"]}])
