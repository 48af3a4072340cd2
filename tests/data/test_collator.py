import pytest
import torch

from llama_adapter.data.collator import PaddingCollator
from llama_adapter.errors import UserError

ROWS = [
    {"input_ids": [5, 6, 7], "labels": [-100, 6, 7], "record_id": "f:1"},
    {"input_ids": [8], "labels": [8], "record_id": "f:2"},
]


def test_rows_are_padded_on_the_right():
    batch = PaddingCollator(9)(ROWS)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 9, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [[-100, 6, 7], [8, -100, -100]]
    assert batch["record_id"] == ["f:1", "f:2"]
    assert all(batch[name].dtype == torch.long for name in ("input_ids", "attention_mask", "labels"))


def test_a_real_token_equal_to_the_pad_token_is_attended_to():
    batch = PaddingCollator(7)(ROWS)
    assert batch["attention_mask"][0].tolist() == [1, 1, 1]
    assert batch["labels"][0].tolist() == [-100, 6, 7]


def test_media_are_handed_on():
    rows = [row | {"media": [f"{row['record_id']}.png"]} for row in ROWS]
    assert PaddingCollator(0)(rows)["media"] == [["f:1.png"], ["f:2.png"]]


def test_an_empty_batch_is_refused():
    with pytest.raises(UserError, match=r"the batch is \[\].* Use a batch size of at least 1"):
        PaddingCollator(0)([])
