"""Lengths and batches of an epoch."""

import json
from dataclasses import replace
from math import ceil
from types import SimpleNamespace

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_adapter.data import DataConfig, SourceConfig
from llama_adapter.errors import UserError
from llama_adapter.models import BaseModelConfig
from llama_adapter.planning.step import Row
from llama_adapter.planning.workload import Workload, measured_workload, stated_workload


def workload(lengths):
    lengths = numpy.array(lengths)
    return Workload(lengths=lengths, labelled=lengths // 2, longest=int(lengths.max()))


@given(
    st.lists(st.integers(2, 300), min_size=1, max_size=60),
    st.integers(1, 9),
    st.integers(1, 4),
    st.integers(1, 4),
)
def test_an_epoch_has_every_token_once(lengths, rows, devices, accumulation):
    load = workload(lengths).epoch(rows, devices, accumulation)
    assert load.tokens == sum(lengths)
    assert load.tokens <= load.padded <= len(lengths) * max(lengths)
    assert 0 <= load.padding_share < 1
    assert load.batches == ceil(ceil(len(lengths) / rows) / devices)
    assert load.optimizer_steps == ceil(load.batches / accumulation)
    assert load.padded**2 / len(lengths) <= load.squares * 1.0001


def test_equal_lengths_need_no_padding_and_single_rows_neither():
    assert workload([7] * 10).epoch(4, 1, 1).padding_share == 0
    assert workload([7, 90, 8]).epoch(1, 1, 1).padding_share == 0
    assert workload([7, 90, 8]).epoch(3, 1, 1).padding_share == pytest.approx(1 - 105 / 270)


def test_the_heaviest_batch_is_that_of_the_longest_records():
    assert workload([5, 40, 30, 10]).heaviest(2) == [Row(40, 20), Row(30, 15)]
    assert workload([5, 40]).heaviest(3) == [Row(40, 20), Row(5, 2), Row(40, 20)]


@given(st.floats(2, 400), st.integers(1, 3000))
def test_stated_means_are_kept(tokens, records):
    found = stated_workload(tokens, records, 512)
    assert found.statistics.records == records
    assert abs(int(found.lengths.sum()) - tokens * records) <= 1
    assert found.statistics.longest == 512
    assert not found.statistics.measured


@given(
    st.lists(st.integers(2, 300), min_size=1, max_size=60),
    st.sampled_from(["tokens", "packed"]),
    st.integers(1, 5),
)
def test_token_budgets_bound_batches(lengths, batching, rows):
    found = replace(workload(lengths), batching=batching)
    args = SimpleNamespace(per_device_train_batch_size=rows, tokens_per_batch=None)
    size = found.size(args)
    assert size >= found.smallest == max(lengths)
    heaviest = found.heaviest(size)
    assert sum(row.tokens for row in heaviest) <= size
    load = found.epoch(size, 1, 1)
    assert load.tokens == sum(lengths)
    assert load.padded <= load.batches * size
    if batching == "packed":
        assert load.padding_share == 0
        assert heaviest[0].records >= 1


def test_a_stated_budget_wins():
    found = replace(workload([10, 20]), batching="tokens")
    assert found.size(SimpleNamespace(per_device_train_batch_size=2, tokens_per_batch=77)) == 77
    assert found.heaviest(77) == [Row(20, 10), Row(10, 5), Row(20, 10)]


def test_stated_padding_and_labels_reach_batches():
    found = stated_workload(100, 40, 512, labelled_share=0.5, padding=0.2)
    load = found.epoch(4, 1, 1)
    assert load.padding_share == pytest.approx(0.2)
    assert load.labelled == 2000
    assert found.heaviest(2) == [Row(512, 256)] * 2


@given(
    st.lists(st.booleans(), min_size=1, max_size=60),
    st.sampled_from(["rows", "tokens", "packed"]),
    st.integers(1, 5),
)
def test_records_beside_an_image_are_counted(sees, batching, rows):
    images = numpy.array(sees, dtype=float)
    mixed = replace(workload([7] * len(sees)), batching=batching, images_of=images)
    size = rows if batching == "rows" else 7 * rows
    load = mixed.epoch(size, 1, 1)
    assert load.images == sum(sees) <= load.seeing_records <= len(sees)
    blind = len(sees) - load.seeing_records
    assert load.blind_rows == blind if batching != "packed" else load.blind_rows <= blind
    apart = replace(mixed, apart=True).epoch(size, 1, 1)
    assert apart.seeing_records == sum(sees)
    assert (apart.tokens, apart.records) == (load.tokens, load.records)


@given(st.integers(1, 300), st.integers(0, 100))
def test_a_stated_share_of_images_is_kept(records, percent):
    found = stated_workload(20, records, 64, images=percent / 100)
    assert found.images == int(records * percent / 100 + 1e-9)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ((1, 10, 512), "tokens_per_record=1 .*Use at least 2 tokens"),
        ((9, 0, 512), "records=0 .*1 record"),
        ((9, 5, 512, 0.0), "labelled_share=0 .*between 0 and 1"),
        ((9, 5, 512, 1.0, 1.0), "padding_share=1 .*between 0 and 1"),
    ],
)
def test_what_is_no_data_is_refused(values, said):
    with pytest.raises(UserError, match=said):
        stated_workload(*values)


def test_data_are_measured_as_training_prepares_them(tmp_path, tiny_base):
    texts = ["a" * size for size in (1, 5, 30)]
    rows = [{"prompt": "b" * 4, "completion": text} for text in texts]
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    source = SourceConfig(path=str(tmp_path / "rows.jsonl"))
    data = DataConfig(train=[source], template="plain", cache_dir=str(tmp_path / "cache"))
    found = measured_workload(data, BaseModelConfig(name_or_path=str(tiny_base)))
    assert numpy.diff(found.lengths).tolist() == [4, 25]
    assert found.labelled.tolist() == [2, 6, 31], "bytes of the answer and its end"
    assert found.longest == found.lengths.max()
    assert found.statistics.measured


def test_streamed_data_are_refused_with_a_way_out(tiny_base):
    data = DataConfig(train=[SourceConfig(path="far/away", streaming=True)])
    with pytest.raises(UserError, match=r"far/away.*Use --tokens-per-record"):
        measured_workload(data, BaseModelConfig(name_or_path=str(tiny_base)))
