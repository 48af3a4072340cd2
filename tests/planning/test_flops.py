"""FLOPs of any batch from those of a few."""

import pytest
import torch
from peft import get_peft_model
from torch._subclasses.fake_tensor import FakeTensorMode

from llama_adapter import ZeroInitConfig
from llama_adapter.planning.fake_model import to_fake_cpu
from llama_adapter.planning.flops import FlopModel, fit_flops
from llama_adapter.planning.step import Row, StepSettings, measure_step
from tests.tiny import tiny_llama


@pytest.mark.parametrize("sees", [False, True])
@pytest.mark.parametrize("length", [4, 9, 40])
def test_a_polynomial_is_found_again(length, sees):
    true = FlopModel(7.0, 3.0, 11.0, 100.0, 13.0, *((19.0, 17.0) if sees else ()))

    def count(rows):
        return round(true.of(**sums(rows)))

    found = fit_flops(count, length, sees)
    assert vars(found) == pytest.approx(vars(true), rel=1e-6, abs=1e-6)


def sums(rows):
    length = max(row.tokens for row in rows)
    seeing = len(rows) if any(row.has_image for row in rows) else 0
    return {
        "padded": len(rows) * length,
        "squares": len(rows) * length**2,
        "labelled": sum(row.labelled for row in rows),
        "blind_rows": len(rows) - seeing,
        "seeing_records": seeing,
        "images": sum(row.has_image for row in rows),
    }


def test_batches_that_were_not_counted_are_predicted_exactly():
    mode = FakeTensorMode(allow_non_fake_inputs=True)

    def count(rows):
        model = tiny_llama().requires_grad_(False)
        config = ZeroInitConfig(task_type="CAUSAL_LM", prompt_length=3, prompt_layers=2)
        fake = to_fake_cpu(get_peft_model(model, config).to("meta"), mode)
        cost = measure_step(fake, rows, StepSettings(), mode)
        return cost.forward_flops + cost.backward_flops

    found = fit_flops(count, 20)
    rows = [Row(37, 9), Row(30, 30), Row(12, 4)]
    # the first token of the second row has a label and nothing before it
    expected = found.of(padded=3 * 37, squares=3 * 37**2, labelled=9 + 29 + 4, blind_rows=3)
    assert count(rows) == pytest.approx(expected, rel=1e-9)
    assert found.per_square > 0
    assert found.per_blind_row == pytest.approx(0, abs=1)
    assert torch.is_grad_enabled()
