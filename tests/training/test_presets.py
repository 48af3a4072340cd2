"""Published hyper-parameters."""

import pytest

from llama_adapter.training.presets import PRESETS, accumulation_for, scaled_learning_rate


@pytest.mark.parametrize(("name", "used"), [("v1", 1.125e-3), ("v2", 1.25e-4)])
def test_published_rates_at_32_rows(name, used):
    assert scaled_learning_rate(PRESETS[name]["base_learning_rate"], 32) == pytest.approx(used)


@pytest.mark.parametrize(("rows_per_pass", "steps"), [(4, 8), (32, 1), (16, 2), (64, 1), (12, 1)])
def test_accumulation_keeps_32_rows_where_that_is_possible(rows_per_pass, steps):
    assert accumulation_for("v1", rows_per_pass) == steps
