"""When keeping the lower layers' output pays: numbers worked out by hand, and rates that are measured."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llama_adapter.training.layer_saving import (
    lower_layer_saving,
    measure_bytes_per_second,
    measure_flops_per_second,
)

NUMBERS = {
    "tokens": 1000,
    "hidden_size": 100,
    "layers_below": 4,
    "flops_per_layer": 1e6,
    "flops_per_second": 1e9,
    "bytes_per_second": 1e6,
}


def test_by_hand():
    saving = lower_layer_saving(**NUMBERS)
    assert saving.bytes_on_disk == 200_000
    assert saving.seconds_to_fill == pytest.approx(0.2)
    assert saving.seconds_per_epoch == pytest.approx(4.0 - 0.2)
    assert saving.over(1) == pytest.approx(-0.2)
    assert saving.over(3) == pytest.approx(2 * 3.8 - 0.2)
    assert lower_layer_saving(**NUMBERS, bytes_per_value=4).bytes_on_disk == 400_000


@given(epochs=st.floats(1, 100), layers=st.integers(1, 100), rate=st.floats(1e3, 1e12))
def test_more_epochs_and_layers_never_cost_where_one_gains(epochs, layers, rate):
    saving = lower_layer_saving(**NUMBERS | {"layers_below": layers, "bytes_per_second": rate})
    deeper = lower_layer_saving(**NUMBERS | {"layers_below": layers + 1, "bytes_per_second": rate})
    assert deeper.over(epochs) >= saving.over(epochs)
    if saving.seconds_per_epoch > 0:
        assert saving.over(epochs + 1) > saving.over(epochs)


def test_rates_of_this_machine(tmp_path):
    assert 1e6 < measure_flops_per_second(torch.device("cpu"), torch.float32, 64) < 1e14
    assert 1e5 < measure_bytes_per_second(tmp_path / "new") < 1e12
    assert list((tmp_path / "new").iterdir()) == []
