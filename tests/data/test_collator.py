import pytest
import torch

from llama_adapter.data.collator import PackingCollator, PaddingCollator
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


def test_packed_rows_restart_their_positions_and_predict_nothing_across_a_border():
    rows = [*ROWS, {"input_ids": [1, 2], "labels": [1, 2], "record_id": "f:3"}]
    batch = PackingCollator()(rows)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 1, 2]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 0, 1]]
    assert batch["labels"].tolist() == [[-100, 6, 7, -100, -100, 2]]  # 8 and 1 were labelled
    assert batch["record_index"].tolist() == [[0, 0, 0, 1, 2, 2]]
    assert batch["record_id"] == ["f:1", "f:2", "f:3"]
    assert "attention_mask" not in batch


def test_packing_keeps_as_many_labels_as_padding():
    labels = [collate(ROWS)["labels"] for collate in (PaddingCollator(0), PackingCollator())]
    padded, packed = [int((part[:, 1:] != -100).sum()) for part in labels]
    assert padded == packed == 2


def test_an_empty_pack_is_refused():
    with pytest.raises(UserError, match=r"the pack is \[\].* Use packs of at least one row"):
        PackingCollator()([])
