"""Rows on disk: what is kept after a stop, and how rows and names are found again."""

import json

import pytest
import torch

from imagebind_llm.cache.parts import Block, PartWriter, StoredFeatures, part_folder
from llama_adapter import UserError
from tests.imagebind_llm.cache.caches import contents, random_features, stored


def block(number, rows=3, width=4):
    names = [f"größe {number}\n{row}" for row in range(rows)]
    return Block(
        names=names, features=random_features(rows, width, seed=number), skipped={f"x{number}": "bad"}
    )


NEGATIVE = json.dumps(
    dict.fromkeys(
        ("blocks", "rows", "skipped", "features.f16", "names.txt", "names.idx", "skipped.jsonl"), -1
    )
)


def write(folder, numbers):
    with PartWriter(folder) as part:
        for number in numbers:
            part.add(block(number))
        part.finish()


def test_what_was_not_saved_is_forgotten(tmp_path):
    write(tmp_path / "whole", range(5))
    with PartWriter(tmp_path / "stopped") as part:
        part.add(block(0))
        part.add(block(1))
        part.save()
        part.add(block(2))
    with PartWriter(tmp_path / "stopped") as part:
        assert (part.blocks, part.rows, part.skipped, part.finished) == (2, 6, 2, False)
        for number in range(2, 5):
            part.add(block(number))
        part.finish()
        assert part.finished
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")


def test_rows_and_names_over_all_parts(tmp_path):
    sizes = (2, 0, 3)
    for shard, blocks in enumerate(sizes, start=1):
        first = sum(sizes[: shard - 1])
        write(part_folder(tmp_path, shard, 3), range(first, first + blocks))
    features = StoredFeatures(tmp_path, 3, 4)
    wanted = stored(torch.cat([block(number).features for number in range(5)]))
    assert (len(features), features.skipped) == (15, 5)
    assert torch.equal(features.rows(torch.arange(15)), wanted)
    assert torch.equal(features.rows(torch.tensor([[14, -1], [0, 7]]))[0, 1], torch.zeros(4))
    for size in (1, 4, 100):
        assert torch.equal(torch.cat(list(features.chunks(size))), wanted)
        assert torch.equal(torch.cat(list(features.chunks(size, 4, 11))), wanted[4:11])
    assert [features.name(row) for row in (0, 5, 6, 14)] == [
        "größe 0 0",
        "größe 1 2",
        "größe 2 0",
        "größe 4 2",
    ]


def test_parts_that_lack_something_are_named(tmp_path):
    folder = part_folder(tmp_path, 1, 2)
    write(folder, range(2))
    with pytest.raises(
        UserError, match=r"1 of 2 parts .*\['part-0002-of-0002'\]. Run 'llama-adapter cache build'"
    ):
        StoredFeatures(tmp_path, 2, 4)
    write(part_folder(tmp_path, 2, 2), [])
    (folder / "features.f16").write_bytes(b"123")
    with pytest.raises(UserError, match="has 3 bytes; 6 rows of width 4 have 48. Build the cache again"):
        StoredFeatures(tmp_path, 2, 4)


def test_names_that_lack_something_are_named(tmp_path):
    folder = part_folder(tmp_path, 1, 1)
    write(folder, range(2))
    (folder / "names.txt").write_bytes(b"short")
    features = StoredFeatures(tmp_path, 1, 4)
    with pytest.raises(UserError, match="names.txt' cannot be read as names of the cache: row 5 .*Build the"):
        features.name(5)
    (folder / "names.idx").write_bytes(bytes(8))
    with pytest.raises(UserError, match="names.idx' has 8 bytes; 6 rows of width 4 have 48. Build"):
        StoredFeatures(tmp_path, 1, 4)
    (folder / "features.f16").unlink()
    with pytest.raises(
        UserError, match="features.f16' cannot be read as rows of the cache: .*Build the cache"
    ):
        StoredFeatures(tmp_path, 1, 4)


@pytest.mark.parametrize("text", ["{", "[]", '{"blocks": 1}', '{"blocks": "x"}', "[" * 100_000, NEGATIVE])
def test_a_damaged_note_of_progress_is_named(text, tmp_path):
    with PartWriter(tmp_path) as part:
        part.save()
    (tmp_path / "progress.json").write_text(text)
    with pytest.raises(UserError, match="progress.json' is damaged: .*Delete the folder"):
        PartWriter(tmp_path)


def test_a_file_shorter_than_noted_is_named(tmp_path):
    with PartWriter(tmp_path) as part:
        part.add(block(0))
        part.save()
    (tmp_path / "names.txt").write_bytes(b"")
    with pytest.raises(UserError, match="names.txt' is shorter than its progress.json says. Delete"):
        PartWriter(tmp_path)
