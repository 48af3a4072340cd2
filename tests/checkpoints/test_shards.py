"""Splitting weights over files and joining them."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from llama_adapter.checkpoints.shards import EMBEDDINGS, join, joined_shape, split, split_axis


@given(st.sampled_from([0, 1, None]), st.sampled_from([1, 2, 4]))
def test_joining_undoes_splitting(axis, count):
    weight = torch.randn(8, 4)
    pieces = split(weight, axis, count)
    assert len(pieces) == count
    assert torch.equal(join(pieces, axis), weight)
    assert joined_shape(pieces[0].shape, axis, count) == (8, 4)


def test_output_split_maps_have_rows_and_input_split_maps_columns_in_different_files():
    axes = {
        name: split_axis(f"layers.0.{name}.weight", (4, 4), 8) for name in ("attention.wq", "attention.wo")
    }
    assert axes == {"attention.wq": 0, "attention.wo": 1}
    assert split_axis("layers.0.ffn_norm.weight", (8,), 8) is None


def test_embeddings_show_how_they_were_split():
    assert split_axis(EMBEDDINGS, (16, 8), 8) == 0
    assert split_axis(EMBEDDINGS, (32, 4), 8) == 1
