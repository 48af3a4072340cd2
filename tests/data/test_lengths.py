"""Lengths read off stored tables and plain lists."""

import datasets
import pytest

from llama_adapter.data.lengths import row_lengths
from llama_adapter.errors import UserError

ROWS = [{"input_ids": [1] * length, "record_id": str(length)} for length in (3, 1, 7, 2)]


def test_tables_and_lists_have_the_same_lengths():
    table = datasets.Dataset.from_list(ROWS)
    assert row_lengths(ROWS).tolist() == row_lengths(table).tolist() == [3, 1, 7, 2]
    assert row_lengths(table.select([2, 0])).tolist() == [7, 3]
    assert row_lengths(datasets.concatenate_datasets([table, table.select([1])])).tolist() == [3, 1, 7, 2, 1]
    assert row_lengths(table.select([])).tolist() == []


def test_rows_without_tokens_are_refused():
    with pytest.raises(UserError, match=r"columns \['text'\].* Use rows with input_ids"):
        row_lengths(datasets.Dataset.from_list([{"text": "a"}]))
