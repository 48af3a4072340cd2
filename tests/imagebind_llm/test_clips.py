"""Records of unequal numbers of clips."""

import pytest
import torch

from imagebind_llm.clips import Clips, join_records
from llama_adapter import UserError


def test_each_record_gets_the_mean_of_its_clips():
    records = [torch.randn(count, 4) for count in (1, 3, 2)]
    clips = join_records(records)
    assert len(clips) == 3
    torch.testing.assert_close(clips.mean(clips.values), torch.stack([record.mean(0) for record in records]))


def test_one_clip_each_is_left_as_it_is():
    values = torch.randn(3, 4)
    assert Clips(values, (1, 1, 1)).mean(values) is values


def test_gradients_pass_the_mean():
    values = torch.randn(3, 4, requires_grad=True)
    Clips(values, (1, 2)).mean(values).sum().backward()
    torch.testing.assert_close(values.grad[:, 0], torch.tensor([1, 0.5, 0.5]))


def test_moving_and_changing_the_type():
    assert Clips(torch.zeros(2, 3), (2,)).to(torch.float64).values.dtype == torch.float64


@pytest.mark.parametrize("counts", [(1, 1), (0, 3), (2, 2)])
def test_counts_that_do_not_fit(counts):
    with pytest.raises(UserError, match="There are 3 clips, but .*Use counts"):
        Clips(torch.zeros(3, 2), counts)
