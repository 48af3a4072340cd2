"""Splitting weights over files and joining them."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from llama_adapter.checkpoints.shards import join, joined_shape, split, split_axis


@given(st.sampled_from([0, 1, None]), st.sampled_from([2, 4]))
def test_joining_undoes_splitting_and_shapes_show_the_axis(axis, count):
    weight = torch.randn(8, 4)
    pieces = split(weight, axis, count)
    assert len(pieces) == count
    assert split_axis(pieces[0].shape, weight.shape, count) == axis
    assert torch.equal(join(pieces, axis), weight)
    assert joined_shape(pieces[0].shape, axis, count) == (8, 4)


def test_one_file_splits_nothing():
    assert split_axis((8, 4), (8, 4), 1) is None
