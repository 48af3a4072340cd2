import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_adapter import UserError
from llama_adapter.token_blocks import TokenBlocks

CPU = torch.device("cpu")


@settings(max_examples=50, deadline=None)
@given(
    rows=st.integers(1, 3),
    length=st.integers(1, 20),
    records=st.integers(1, 5),
    size=st.integers(1, 8),
    seed=st.integers(0, 99),
)
def test_every_token_comes_back_from_a_block_of_its_record(rows, length, records, size, seed):
    """In any order, not only one record after another."""
    generator = torch.Generator().manual_seed(seed)
    index = torch.randint(0, records, (rows, length), generator=generator)
    blocks = TokenBlocks.of(index, records, CPU, size)
    query = torch.randn(rows, 2, length, 3, generator=generator)
    split = blocks.split(query)
    assert split.shape == (len(blocks.record_of_block), 2, size, 3)
    assert torch.equal(blocks.join(split), query.transpose(1, 2))
    marked = split.new_zeros(split.shape) + blocks.record_of_block[:, None, None, None]
    assert torch.equal(blocks.join(marked)[:, :, 0, 0].long(), index)
    needed = sum(-(-int((index == record).sum()) // size) for record in range(records))
    assert len(blocks.record_of_block) == needed


def test_gradients_come_back_to_their_tokens():
    index = torch.tensor([[0, 1, 0, 1, 1]])
    query = torch.randn(1, 2, 5, 3, requires_grad=True)
    blocks = TokenBlocks.of(index, 2, CPU, 2)
    weights = torch.randn(1, 5, 2, 3)
    (blocks.join(blocks.split(query)) * weights).sum().backward()
    assert torch.equal(query.grad, weights.transpose(1, 2))


def test_unknown_records_are_refused():
    with pytest.raises(UserError, match=r"from 0 to 2, with 2 conditions. Use numbers from 0 to 1, and -1"):
        TokenBlocks.of(torch.tensor([[0, 2]]), 2, CPU)


def test_another_batch_is_refused():
    blocks = TokenBlocks.of(torch.zeros(2, 4, dtype=torch.long), 1, CPU)
    with pytest.raises(UserError, match=r"has the shape \(2, 4\), the pass \(2, 1\). Use it for passes over"):
        blocks.split(torch.zeros(2, 1, 1, 3))
