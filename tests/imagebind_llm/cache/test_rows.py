"""Feature files of every type give the same blocks; others are named."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from imagebind_llm.cache import rows
from imagebind_llm.cache.rows import FeatureRows, feature_files, open_features
from llama_adapter import UserError
from tests.imagebind_llm.cache.caches import random_features


def test_all_types(tmp_path):
    features = random_features(10)
    np.save(tmp_path / "a.npy", features.numpy())
    save_file({"x": features}, tmp_path / "b.safetensors")
    torch.save(features, tmp_path / "c.pt")
    torch.save({"x": features.half()}, tmp_path / "d.pt")
    for name in ("a.npy", "b.safetensors", "c.pt"):
        assert torch.equal(open_features(tmp_path / name), features)
    assert torch.equal(open_features(tmp_path / "d.pt"), features.half())
    assert [path.name for path in feature_files(tmp_path)] == ["a.npy", "b.safetensors", "c.pt", "d.pt"]


def test_blocks_run_over_files_and_leave_out_what_has_no_direction(tmp_path, monkeypatch):
    monkeypatch.setattr(FeatureRows, "block", 4)
    features = random_features(11)
    features[2], features[6, 3] = 0, torch.inf
    np.save(tmp_path / "a.npy", features[:5].numpy())
    np.save(tmp_path / "b.npy", features[5:].numpy())
    source = FeatureRows(feature_files(tmp_path))
    assert (source.items, source.total_blocks, source.dimension) == (11, 3, features.shape[1])
    first, second, third = source.blocks(0, 3)
    assert first.names == ["a.npy:0", "a.npy:1", "a.npy:3"]
    assert first.skipped == {"a.npy:2": "its embedding is zero or not finite"}
    assert second.names == ["a.npy:4", "b.npy:0", "b.npy:2"]
    assert torch.equal(second.features, features[[4, 5, 7]])
    assert third.names == ["b.npy:3", "b.npy:4", "b.npy:5"]
    assert torch.equal(next(source.blocks(2, 3)).features, third.features)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (np.zeros(3), r"has the shape \(3,\). Use a file with one matrix"),
        (np.zeros((0, 3)), r"has the shape \(0, 3\)"),
        (np.array([{}]), "holds pickled objects, which may run code. Save numbers"),
        (b"no array", "cannot be read as an array: .*Replace the file"),
    ],
)
def test_what_is_no_matrix_is_named(content, said, tmp_path):
    path = tmp_path / "a.npy"
    path.write_bytes(content) if isinstance(content, bytes) else np.save(path, content)
    with pytest.raises(UserError, match=said):
        open_features(path)


def test_pickles_and_unequal_widths_are_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return print, ("run",)

    torch.save(Evil(), tmp_path / "a.pt")
    with pytest.raises(UserError, match="a.pt' is damaged, or wants to run code while loading. Save"):
        open_features(tmp_path / "a.pt")
    np.save(tmp_path / "b.npy", np.ones((2, 3), dtype=np.float32))
    np.save(tmp_path / "c.npy", np.ones((2, 4), dtype=np.float32))
    with pytest.raises(UserError, match=r"have the widths \[3, 4\]. Use files of one encoder"):
        FeatureRows([tmp_path / "b.npy", tmp_path / "c.npy"])
    assert rows.feature_files(tmp_path / "x.txt") == []
