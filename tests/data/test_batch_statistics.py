"""Plans in numbers, counted by hand."""

import io

import numpy as np
import pytest
from rich.console import Console

from llama_adapter.data.batch_statistics import batch_statistics, batch_table, batches_of_rows

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


def test_the_table_puts_all_ways_side_by_side():
    console = Console(file=io.StringIO(), width=120)
    lengths = np.array([10, 10, 10, 30, 30, 30] * 8)
    console.print(batch_table(lengths, max_length=50, rows=3, tokens=60))
    rows = [line.split("│") for line in console.file.getvalue().splitlines() if "│" in line]
    found = {line[1].strip(): [cell.strip() for cell in line[2:-1]] for line in rows}
    assert found["3 rows padded to 50"] == ["16", "3.0", "150", "60.0%"]
    tokens, packed = found["tokens: at most 60 tokens"], found["packed: at most 60 tokens"]
    assert 16 <= int(packed[0]) <= int(tokens[0]) <= 18  # 16 is the least that hold them
    assert tokens[2] == packed[2] == "60"
    assert float(tokens[3].rstrip("%")) < 10
    assert packed[3] == "0.0%"
    random = float(found["rows: 3 at random"][3].rstrip("%"))
    assert 0 < random < 60
