"""Plans in numbers, counted by hand."""

import numpy as np
import pytest

from llama_adapter.data.batch_statistics import batch_statistics, batches_of_rows

LENGTHS = np.array([4, 2, 6, 6])


def test_padding_is_counted_up_to_the_longest_of_each_batch():
    found = batch_statistics(LENGTHS, [[0, 1], [2, 3], []])
    assert (found.batches, found.rows, found.tokens) == (3, 4, 18)
    assert found.padding_share == pytest.approx(2 / 20)
    assert found.largest == 12
    assert found.rows_per_batch == pytest.approx(4 / 3)
    assert (found.mean_length, found.median_length, found.p90_length, found.longest) == (4.5, 4, 6, 6)


def test_packs_have_no_padding_and_fixed_lengths_have_more():
    assert batch_statistics(LENGTHS, [[0, 1, 2], [3]], packed=True).padding_share == 0
    assert batch_statistics(LENGTHS, [[0, 1, 2], [3]], packed=True).largest == 12
    assert batch_statistics(LENGTHS, [[0, 1], [2, 3]], padded_to=8).padding_share == pytest.approx(14 / 32)


def test_nothing_at_all_has_no_padding():
    found = batch_statistics(np.zeros(0, dtype=np.int64), [])
    assert (found.rows, found.padding_share, found.largest, found.longest) == (0, 0.0, 0, 0)


def test_batches_of_rows_hold_every_row_once():
    plan = batches_of_rows(10, 4)
    assert sorted(map(len, plan)) == [2, 4, 4]
    assert sorted(row for batch in plan for row in batch) == list(range(10))
    assert plan != batches_of_rows(10, 4, seed=1)
