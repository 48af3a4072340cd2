"""What the non-finite guard says."""

import math

import pytest
import torch

from llama_adapter.errors import UserError
from llama_adapter.training.guard import (
    SKIPPED_STEPS,
    SMALLEST_SCALE,
    Moment,
    ScalerWatch,
    check_gradient,
    check_losses,
)

MOMENT = Moment(step=12, learning_rate=0.01, precision="no")
ROWS = torch.tensor([0, 0, 1, 2])
IDS = ["a.jsonl:1", "a.jsonl:2", "a.jsonl:3"]


def test_finite_values_pass():
    check_losses(torch.tensor([1.0, 2.0, 3.0, 0.0]), ROWS, IDS, MOMENT)
    check_losses(torch.tensor([]), torch.tensor([], dtype=torch.long), IDS, MOMENT)
    check_gradient(3.0, IDS, MOMENT)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_only_the_rows_that_went_wrong_are_named(bad):
    message = (
        rf"The loss became {bad} in step 12 on 1 of 3 records: a\.jsonl:2\. "
        r"Try to lower training\.learning_rate"
    )
    with pytest.raises(UserError, match=message):
        check_losses(torch.tensor([1.0, 2.0, bad, 0.0]), ROWS, IDS, MOMENT)
    with pytest.raises(
        UserError, match=rf"gradient norm became {bad} in step 12, whose records are a\.jsonl:1"
    ):
        check_gradient(bad, IDS, MOMENT)


def test_when_all_rows_went_wrong_the_weights_are_suspected():
    with pytest.raises(
        UserError, match="on all 3 records, so rather the weights than the records are at fault"
    ):
        check_losses(torch.full((4,), math.nan), ROWS, IDS, MOMENT)


def test_without_record_ids_rows_are_named():
    with pytest.raises(UserError, match="on 1 of 3 records: record 2 of the batch"):
        check_losses(torch.tensor([1.0, 2.0, 1.0, math.nan]), ROWS, [], MOMENT)
    with pytest.raises(UserError, match="gives no record_id"):
        check_gradient(math.nan, [], MOMENT)


FP16 = Moment(step=30, learning_rate=1e-3, precision="fp16")


def test_a_scaler_may_skip_some_steps_and_grow():
    watch, scale = ScalerWatch(2.0**24), 2.0**24
    for _ in range(3):
        for _ in range(SKIPPED_STEPS - 1):
            scale /= 2
            watch.check(scale, IDS, FP16)
        watch.check(scale, IDS, FP16)
        scale *= 2.0**SKIPPED_STEPS
        watch.check(scale, IDS, FP16)


def test_a_scaler_that_goes_on_skipping_stops_the_run():
    watch = ScalerWatch(2.0**16)
    for step in range(1, SKIPPED_STEPS):
        watch.check(2.0 ** (16 - step), IDS, FP16)
    message = (
        rf"overflow in fp16: {SKIPPED_STEPS} steps in a row were skipped, up to step 30, whose records are "
        r"a\.jsonl:1, a\.jsonl:2, a\.jsonl:3; the loss scale is down to 0\.0625\. Try to lower .* or use bf16"
    )
    with pytest.raises(UserError, match=message):
        watch.check(2.0 ** (16 - SKIPPED_STEPS), IDS, FP16)


def test_a_scale_that_collapsed_stops_the_run_although_most_steps_succeed():
    watch = ScalerWatch(2 * SMALLEST_SCALE)
    watch.check(SMALLEST_SCALE, IDS, FP16)
    watch.check(SMALLEST_SCALE, IDS, FP16)
    with pytest.raises(UserError, match="scale is down to 0.000488"):
        watch.check(SMALLEST_SCALE / 2, IDS, FP16)


def test_fp16_is_told_about_bf16():
    with pytest.raises(UserError, match="or use bf16 instead of fp16"):
        check_gradient(math.nan, IDS, Moment(step=1, learning_rate=1e-3, precision="fp16"))


def test_a_long_list_is_cut():
    with pytest.raises(UserError, match=r"x:7 and 92 more\."):
        check_gradient(math.nan, [f"x:{line}" for line in range(100)], MOMENT)
