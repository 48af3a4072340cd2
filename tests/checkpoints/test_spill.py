"""Tensors that lie in files keep their values, and the files go."""

import torch

from llama_adapter.checkpoints.spill import spilling


def test_large_tensors_lie_in_files_for_as_long_as_they_are_needed(tmp_path):
    torch.manual_seed(0)
    large, small = torch.randn(600, 500).bfloat16().repeat(2, 2), torch.randn(3)
    with spilling(tmp_path) as keep:
        kept = keep(large.mT)
        assert torch.equal(kept, large.mT)
        assert kept.dtype == large.dtype
        assert keep(small) is small
        (place,) = tmp_path.iterdir()
        assert [path.stat().st_size for path in place.iterdir()] == [large.nbytes]
        torch.save(kept, tmp_path / "file.pth")
        del kept
    assert [path.name for path in tmp_path.iterdir()] == ["file.pth"]
    assert torch.equal(torch.load(tmp_path / "file.pth", weights_only=True), large.mT)
