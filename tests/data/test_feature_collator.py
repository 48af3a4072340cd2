"""Features beside the rows they belong to, with and without media in one batch."""

from pathlib import Path

import pytest
import torch

from llama_adapter.data import PaddingCollator
from llama_adapter.data.feature_cache import FeatureCache, FeatureIdentity, FeatureTable
from llama_adapter.data.feature_collator import FeatureCollator
from llama_adapter.errors import UserError


def row(number, media=()):
    return {
        "input_ids": [number] * (number + 1),
        "labels": [number] * (number + 1),
        "record_id": f"a.json:{number}",
        "media": list(media),
    }


@pytest.fixture
def table(tmp_path):
    for name, content in (("one.txt", b"1"), ("two.txt", b"22")):
        (tmp_path / name).write_bytes(content)
    cache = FeatureCache(tmp_path / "cache", FeatureIdentity(encoder={}, transform={}, dtype="float32"))

    def encode(paths):
        lengths = [Path(path).stat().st_size for path in paths]
        return [torch.full((length, 3), float(length)) for length in lengths]

    return cache.table(["one.txt", "two.txt", "one.txt"], encode, progress=False)


def test_each_row_gets_its_own_features_and_text_rows_none(table):
    collate = FeatureCollator(PaddingCollator(0), table)
    batch = collate([row(1, ["two.txt"]), row(2), row(3, ["one.txt"])])
    assert batch["features"].shape == (3, 2, 3)
    assert batch["features"][0].tolist() == [[2.0] * 3, [2.0] * 3]
    assert batch["features"][1].abs().sum() == 0
    assert batch["features"][2].tolist() == [[1.0] * 3, [0.0] * 3]
    assert batch["feature_mask"].tolist() == [[True, True], [False, False], [True, False]]
    assert batch["record_id"] == ["a.json:1", "a.json:2", "a.json:3"]
    assert "media" not in batch


def test_a_batch_of_text_alone_is_the_inner_collators(table):
    batch = FeatureCollator(PaddingCollator(0), table)([row(1), row(2)])
    assert sorted(batch) == ["attention_mask", "input_ids", "labels", "record_id"]


def test_the_table_is_a_mapping_by_name(table):
    assert sorted(table) == ["one.txt", "two.txt"]
    assert len(table) == 2
    assert table["two.txt"].shape == (2, 3)


def test_rows_that_cannot_be_served(table):
    collate = FeatureCollator(PaddingCollator(0), table)
    with pytest.raises(UserError, match=r"a.json:1 names 2 media: .*Use one per record"):
        collate([row(1, ["one.txt", "two.txt"])])
    with pytest.raises(
        UserError, match=r"a.json:1 names 'three.txt', which has no features. Use FeatureCache"
    ):
        collate([row(1, ["three.txt"])])
    mixed = FeatureTable(["a", "b"], [torch.ones(1, 2), torch.ones(1, 3)])
    with pytest.raises(UserError, match=r"have the widths \[2, 3\]. Use one encoder"):
        FeatureCollator(PaddingCollator(0), mixed)([row(1, ["a"]), row(2, ["b"])])
