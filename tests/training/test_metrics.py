"""Likelihood, throughput, memory and FLOPs."""

import math
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from llama_adapter.training.metrics import (
    AnswerLikelihood,
    ThroughputMeter,
    Work,
    peak_flops,
    peak_memory_gib,
    training_flops,
)


@given(
    st.lists(st.tuples(st.floats(0, 50, width=32), st.integers(1, 40)), min_size=1, max_size=20),
    st.integers(1, 5),
)
def test_likelihood_does_not_depend_on_how_rows_are_batched(rows, size):
    likelihood = AnswerLikelihood()
    for start in range(0, len(rows), size):
        nll, tokens = zip(*rows[start : start + size], strict=True)
        likelihood.add(torch.tensor(nll), torch.tensor(tokens))
    expected = sum(nll for nll, _ in rows) / sum(tokens for _, tokens in rows)
    metrics = likelihood.metrics("eval")
    assert metrics["eval_loss"] == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert metrics["eval_perplexity"] == pytest.approx(math.exp(expected))


def test_likelihood_of_nothing_and_of_a_broken_model():
    assert math.isnan(AnswerLikelihood().metrics("eval")["eval_loss"])
    broken = AnswerLikelihood(nll=1e6, tokens=10)
    assert broken.metrics("test")["test_perplexity"] == math.inf


def test_meter_times_steps_only():
    meter = ThroughputMeter()
    for _ in range(2):
        meter.start()
        time.sleep(0.02)
        meter.stop(Work(tokens=100, labelled=40, flops=1e6))
        time.sleep(0.05)  # an evaluation, which does not count
    window = meter.take_window()
    assert 0.04 <= window.seconds < 0.09
    rates = window.rates(peak_flops=1e9)
    assert rates["tokens_per_second"] == pytest.approx(200 / window.seconds)
    assert rates["labelled_tokens_per_second"] == pytest.approx(80 / window.seconds)
    assert rates["mfu"] == pytest.approx(2e6 / window.seconds / 1e9)
    assert meter.take_window().rates(None) == {}
    assert meter.total.tokens == 200


def test_a_stop_without_a_start_counts_nothing():
    meter = ThroughputMeter()
    meter.stop(Work(tokens=5))
    assert meter.total.tokens == 0


def test_peak_memory_grows_with_what_is_allocated():
    before = peak_memory_gib(torch.device("cpu"))
    block = torch.ones(2**27 // 4 + int(before * 2**28))  # at least 128 MiB more than ever before
    assert peak_memory_gib(torch.device("cpu")) >= before + 0.1
    assert block[0] == 1


@pytest.mark.parametrize(
    ("name", "given_", "expected"),
    [
        ("NVIDIA A100-SXM4-80GB", None, 312e12),
        ("NVIDIA H100 80GB HBM3", None, 989e12),
        ("NVIDIA L40S", None, 362e12),
        ("NVIDIA L4", None, 121e12),
        ("NVIDIA GeForce RTX 4090", None, 165e12),
        ("NVIDIA A100-SXM4-80GB", 1e12, 1e12),
        ("Some new card", None, None),
    ],
)
def test_peak_flops_of_known_devices(monkeypatch, name, given_, expected):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert peak_flops(torch.device("cuda"), given_) == expected


def test_peak_flops_of_a_cpu_is_what_the_user_says():
    assert peak_flops(torch.device("cpu"), None) is None
    assert peak_flops(torch.device("cpu"), 1e11) == 1e11


@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), ("gate_proj", "up_proj", "down_proj")])
def test_flops_agree_with_torchs_counter_up_to_attention(adapted, targets):
    model = adapted(targets=targets)
    ids = torch.randint(1, 48, (2, 4))
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids).logits.sum().backward()
    counted = counter.get_flop_counts()["Global"]
    attention = sum(count for op, count in counted.items() if "attention" in str(op) or "bmm" in str(op))
    products = sum(counted.values()) - attention
    assert training_flops(model).of(tokens=8, labelled=8) == pytest.approx(products, rel=0.08)
