"""The published schedule against the published formula, and the rates that training really uses."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_adapter.errors import UserError
from llama_adapter.training.schedule import EpochClock, PublishedSchedule, step_factor


def published(epoch, peak, minimum, warmup, epochs):
    """The formula of the published code, written down independently."""
    if epoch < warmup:
        return peak * epoch / warmup
    return minimum + (peak - minimum) * 0.5 * (1.0 + math.cos(math.pi * (epoch - warmup) / (epochs - warmup)))


@given(
    batches=st.integers(1, 50),
    accumulation=st.integers(1, 6),
    epochs=st.integers(1, 6),
    warmup=st.floats(0, 0.99),
    peak=st.floats(1e-5, 1.0),
    floor=st.floats(0, 1),
)
def test_every_step_has_the_published_rate(batches, accumulation, epochs, warmup, peak, floor):
    clock = EpochClock(batches_per_epoch=batches, accumulation=accumulation)
    schedule = PublishedSchedule(
        peak=peak, minimum=peak * floor, warmup_epochs=warmup * epochs, epochs=float(epochs)
    )
    factor = step_factor(schedule, clock)
    step = 0
    for epoch in range(epochs):
        for batch in range(0, batches, accumulation):  # the published loop sets the rate at these batches
            expected = published(epoch + batch / batches, peak, peak * floor, warmup * epochs, epochs)
            assert factor(step) * peak == pytest.approx(expected, rel=1e-9, abs=1e-15)
            step += 1
    assert clock.steps_per_epoch * epochs == step


def test_published_v1_run_starts_at_zero_peaks_after_two_epochs_and_ends_at_zero():
    clock = EpochClock(batches_per_epoch=1625, accumulation=1)
    schedule = PublishedSchedule(peak=1.125e-3, minimum=0.0, warmup_epochs=2.0, epochs=5.0)
    rates = [step_factor(schedule, clock)(step) * 1.125e-3 for step in (0, 1625, 3250, 5687, 8125)]
    assert rates == pytest.approx([0.0, 0.5625e-3, 1.125e-3, 0.5625e-3, 0.0], rel=1e-3, abs=1e-12)


def test_rates_of_a_real_run(trainer):
    made = trainer(
        max_steps=-1,
        num_train_epochs=3.0,
        schedule="published",
        warmup_epochs=1.0,
        min_learning_rate=1e-3,
        gradient_accumulation_steps=2,
    )
    made.train()  # 12 records, batches of 2: 6 batches, 3 steps per epoch
    used = [record["learning_rate"] for record in made.state.log_history if "loss" in record]
    expected = [published(step / 3, 1e-2, 1e-3, 1.0, 3.0) for step in range(9)]
    assert used == pytest.approx(expected)
    assert used[0] == 0.0


def test_max_steps_is_the_length_of_the_cosine(trainer):
    made = trainer(max_steps=3, schedule="published", warmup_epochs=0.25)
    made.train()  # 6 batches per epoch, so the run is half an epoch long
    used = [record["learning_rate"] for record in made.state.log_history if "loss" in record]
    assert used == pytest.approx([published(step / 6, 1e-2, 0.0, 0.25, 0.5) for step in range(3)])


@pytest.mark.parametrize("warmup", [2.0, 3.0, -1.0])
def test_a_warm_up_that_leaves_nothing_is_refused(warmup):
    with pytest.raises(UserError, match="does not fit into a run of 2 epochs. Choose a shorter warm-up"):
        PublishedSchedule(peak=1e-3, minimum=0.0, warmup_epochs=warmup, epochs=2.0)


def test_a_rate_of_zero_is_refused():
    with pytest.raises(UserError, match="learning_rate=0 trains nothing. Choose a rate above 0"):
        PublishedSchedule(peak=0.0, minimum=0.0, warmup_epochs=0.0, epochs=1.0)


def test_data_without_a_length_is_refused(trainer, records):
    from torch.utils.data import IterableDataset

    class Stream(IterableDataset):
        def __iter__(self):
            return iter(records(8))

    made = trainer(train=Stream(), schedule="published")
    with pytest.raises(
        UserError, match="schedule='published' counts epochs, and streamed training data has no length"
    ):
        made.train()
    streamed = trainer(train=Stream(), folder="streamed", max_steps=3)
    streamed.train()
    assert streamed.state.global_step == 3
