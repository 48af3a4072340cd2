"""Official tensors that hold several weights, or other rows: taking apart and putting together."""

import pytest
import torch
from safetensors.torch import load_file

from llama_adapter.checkpoints.shards import join, split
from llama_adapter.checkpoints.stored import GroupedQkv, Layout, Rotated, StackedExperts
from tests.adapters.official import GOLDEN

CASES = [
    (Layout(), [(6, 4)], 0),
    (Rotated(2), [(8, 4)], 0),
    (Rotated(2), [(8,)], 0),
    (StackedExperts(3, transposed=False), [(4, 5)] * 3, 0),
    (StackedExperts(3, transposed=True), [(5, 4)] * 3, 0),
    (GroupedQkv(2, 3), [(12, 5), (4, 5), (4, 5)], None),
    (GroupedQkv(2, 3), [(12,), (4,), (4,)], None),
]


@pytest.mark.parametrize(("layout", "shapes", "axis"), CASES)
def test_shares_of_two_files_give_the_weights_back(layout, shapes, axis):
    weights = [torch.randn(shape) for shape in shapes]
    turned = [layout.turn_back(weight) for weight in weights]
    shares = [layout.paste([split(weight, axis, 2)[file] for weight in turned]) for file in range(2)]
    for index, weight in enumerate(weights):
        assert torch.equal(layout.turn(join([layout.cut(share, index) for share in shares], axis)), weight)


def test_grouped_rows_are_queries_key_value_of_each_group():
    rows = torch.arange(2 * 5 * 2).view(20, 1)
    queries, keys, values = (GroupedQkv(2, 3).cut(rows, index).flatten().tolist() for index in range(3))
    assert queries == [0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15]
    assert keys == [6, 7, 16, 17]
    assert values == [8, 9, 18, 19]


def test_stacked_experts_split_as_the_original_does():
    golden = load_file(GOLDEN / "sphinx_checkpoint_shards.safetensors")
    whole, shares = golden["moe_sparse/full"], [golden[f"moe_sparse/shard{file}"] for file in range(2)]
    layout = StackedExperts(4, transposed=False)
    experts = [layout.cut(whole, expert) for expert in range(4)]
    for file, share in enumerate(shares):
        assert torch.equal(layout.paste([split(expert, 0, 2)[file] for expert in experts]), share)
