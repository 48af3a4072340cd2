"""The roofline."""

import pytest

from llama_adapter.hardware import find_device
from llama_adapter.planning.timing import EpochWork, epoch_seconds, peak_rate

A100 = find_device("a100-80gb")


def test_computing_counts_where_it_is_slowest():
    work = EpochWork(flops=312e12 * 0.4 * 10, passes=2, weight_bytes=1)
    assert epoch_seconds(work, A100, 312e12, 0.4) == pytest.approx(10)


def test_reading_weights_counts_where_batches_are_small():
    work = EpochWork(flops=1, passes=100, weight_bytes=int(A100.bandwidth))
    assert epoch_seconds(work, A100, 312e12, 0.4) == pytest.approx(100)


def test_gathering_counts_where_links_are_slow():
    work = EpochWork(flops=1, passes=5, weight_bytes=1, gathered_bytes=int(A100.link))
    assert epoch_seconds(work, A100, 312e12, 0.4) == pytest.approx(5)


def test_turning_weights_back_adds_to_the_rest():
    plain = EpochWork(flops=312e12 * 4, passes=2, weight_bytes=1)
    quantised = EpochWork(flops=312e12 * 4, passes=2, weight_bytes=1, dequantised_bytes=int(A100.bandwidth))
    more = epoch_seconds(quantised, A100, 312e12, 0.4) - epoch_seconds(plain, A100, 312e12, 0.4)
    assert more == pytest.approx(4)


def test_rates_follow_the_precision():
    assert peak_rate(A100, is_half=True) == 312e12
    assert peak_rate(A100, is_half=False) == 19.5e12
    assert peak_rate(A100, is_half=False, tf32=True) == 156e12
