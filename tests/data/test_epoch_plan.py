"""Steps of one kind of rows, and parts of an epoch."""

import numpy as np
import pytest

from llama_adapter.data.batching import BatchRules, batches_per_epoch, plan_epoch
from llama_adapter.data.epoch_plan import EpochLayout, EpochPlan
from llama_adapter.errors import UserError

LENGTHS = np.random.default_rng(0).integers(3, 20, 61)
KINDS = (np.arange(61) % 3 == 0).astype(int)
RULES = [BatchRules(rows=2, ranks=2), BatchRules(tokens=40, ranks=2), BatchRules(tokens=40, packed=True)]


def steps_of(plan, rules, layout, epoch=0):
    batches = plan.batches(epoch)
    size = rules.ranks * layout.accumulation
    assert len(batches) == plan.count
    assert len(batches) % size == 0
    return [batches[at : at + size] for at in range(0, len(batches), size)]


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("accumulation", [1, 3])
def test_no_step_has_rows_of_two_kinds_and_every_row_is_used_once(rules, accumulation):
    layout = EpochLayout(kinds=KINDS, accumulation=accumulation)
    plan = EpochPlan(LENGTHS, rules, layout)
    for epoch in range(3):
        steps = steps_of(plan, rules, layout, epoch)
        assert all(len({KINDS[row] for batch in step for row in batch}) == 1 for step in steps)
        assert sorted(row for step in steps for batch in step for row in batch) == list(range(61))
    assert plan.batches(0) != plan.batches(1)
    assert plan.batches(1) == EpochPlan(LENGTHS, rules, layout).batches(1)
    kinds = [KINDS[next(row for batch in step for row in batch)] for step in steps]
    assert kinds != sorted(kinds)  # steps are shuffled


@pytest.mark.parametrize("rules", RULES)
def test_without_kinds_and_parts_it_is_the_plain_plan(rules):
    plan = EpochPlan(LENGTHS, rules, EpochLayout(accumulation=4))
    count = batches_per_epoch(LENGTHS, rules)
    assert plan.count == count
    assert plan.batches(3) == plan_epoch(LENGTHS, rules, 3, count)


@pytest.mark.parametrize("kinds", [None, KINDS])
def test_the_parts_of_a_pass_are_disjoint_and_of_one_size(kinds):
    rules, layout = BatchRules(rows=2, ranks=2), EpochLayout(kinds=kinds, parts=4)
    plan = EpochPlan(LENGTHS, rules, layout)
    first = [row for epoch in range(4) for batch in plan.batches(epoch) for row in batch]
    assert len(first) == len(set(first))
    assert len(first) > 61 - 4 * 4  # what is left over is less than a step for each part
    second = [row for epoch in range(4, 8) for batch in plan.batches(epoch) for row in batch]
    assert first != second
    assert {len(plan.batches(epoch)) for epoch in range(8)} == {plan.count}


def test_a_part_without_a_step_is_named():
    with pytest.raises(UserError, match="61 rows make 31 optimiser steps, too few for 40 parts"):
        EpochPlan(LENGTHS, BatchRules(rows=2), EpochLayout(parts=40)).count  # noqa: B018
    with pytest.raises(UserError, match="parts=0. Set both to at least 1"):
        EpochLayout(parts=0)
