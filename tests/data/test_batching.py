"""Plans of batches: every row once, no batch over its budget, the same number on every rank."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_adapter.data.batch_statistics import batch_statistics
from llama_adapter.data.batching import BatchRules, batches_per_epoch, plan_epoch, token_budget
from llama_adapter.errors import UserError

lengths_of_rows = st.lists(st.integers(1, 60), min_size=1, max_size=120).map(np.array)
rules_of_batches = st.builds(
    BatchRules,
    tokens=st.integers(1, 200),
    rows=st.none() | st.integers(1, 9),
    packed=st.booleans(),
    ranks=st.integers(1, 5),
    seed=st.none() | st.integers(0, 3),
)


def plan_of(lengths, rules, epoch=0):
    return plan_epoch(lengths, rules, epoch, batches_per_epoch(lengths, rules))


def size(batch, lengths, packed):
    held = lengths[batch]
    return int(held.sum() if packed else held.max() * len(held))


def instruction_lengths(count, seed=0):
    """Lengths as instruction data have them: many short rows, a long tail, cut off at 512."""
    drawn = np.random.default_rng(seed).lognormal(mean=4.9, sigma=0.7, size=count)
    return np.clip(drawn, 12, 512).astype(np.int64)


@settings(deadline=None, max_examples=300)
@given(lengths_of_rows, rules_of_batches, st.integers(0, 4))
def test_every_row_once_within_the_budget_and_as_many_batches_for_every_rank(lengths, rules, epoch):
    count = batches_per_epoch(lengths, rules)
    plan = plan_epoch(lengths, rules, epoch, count)
    assert len(plan) == count  # whatever the epoch
    assert count % rules.ranks == 0
    assert sorted(row for batch in plan for row in batch) == list(range(len(lengths)))
    for batch in plan:
        if len(batch) > 1:
            assert size(batch, lengths, rules.packed) <= rules.tokens
            assert rules.rows is None or len(batch) <= rules.rows
    empty = sum(not batch for batch in plan)
    assert empty < rules.ranks
    assert not empty or max(map(len, plan)) == 1  # only where nothing can be halved


@settings(deadline=None, max_examples=100)
@given(lengths_of_rows, rules_of_batches)
def test_no_batch_could_take_one_row_less_of_its_length(lengths, rules):
    """Cut from rows sorted as a whole, the number of batches is the smallest that any partition has."""
    whole = BatchRules(tokens=rules.tokens, rows=rules.rows, seed=None)
    remaining, needed = sorted(lengths.tolist(), reverse=True), 0
    while remaining:  # the longest row left needs a batch, and that takes no more rows than these
        fitting = max(min(rules.tokens // remaining[0], rules.rows or len(remaining)), 1)
        remaining, needed = remaining[fitting:], needed + 1
    assert batches_per_epoch(lengths, whole) == needed


@pytest.mark.parametrize("packed", [False, True])
def test_epochs_differ_and_repeat_exactly(packed):
    lengths = instruction_lengths(500)
    rules = BatchRules(tokens=1024, packed=packed, ranks=2, seed=3)
    first, second = plan_of(lengths, rules, 0), plan_of(lengths, rules, 1)
    assert plan_of(lengths, rules, 0) == first
    assert plan_of(lengths, BatchRules(tokens=1024, packed=packed, ranks=2, seed=4), 0) != first
    companies = [{frozenset(batch) for batch in plan} for plan in (first, second)]
    assert len(companies[0] & companies[1]) < 0.1 * len(first)  # not the same batches in another order


def test_plans_leave_the_global_random_state_alone():
    np.random.seed(5)
    wanted = np.random.random()
    np.random.seed(5)
    plan_of(instruction_lengths(50), BatchRules(tokens=600))
    assert np.random.random() == wanted


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("tokens", "count"), [(1024, 1000), (4096, 1000), (4096, 20_000)])
def test_padding_is_small_on_lengths_of_instruction_data(seed, tokens, count):
    lengths = instruction_lengths(count, seed)
    for epoch in range(2):
        plan = plan_of(lengths, BatchRules(tokens=tokens, seed=seed, ranks=2), epoch)
        assert batch_statistics(lengths, plan).padding_share < 0.1
    packs = plan_of(lengths, BatchRules(tokens=tokens, seed=seed, packed=True))
    filled = lengths.sum() / (len(packs) * tokens)
    assert filled > 0.93  # of the budget


def test_lengths_are_mixed_over_the_epoch():
    lengths = instruction_lengths(2000)
    plan = plan_of(lengths, BatchRules(tokens=2048, seed=0))
    longest = [lengths[batch].max() for batch in plan]
    halves = np.mean(longest[: len(plan) // 2]), np.mean(longest[len(plan) // 2 :])
    assert halves[0] == pytest.approx(halves[1], rel=0.2)


def test_without_a_seed_the_longest_come_first():
    lengths = np.array([3, 9, 5, 9, 1])
    assert plan_of(lengths, BatchRules(rows=2, seed=None)) == [[1, 3], [2, 0], [4]]


def test_a_row_over_the_budget_is_a_batch_of_its_own():
    lengths = np.array([2, 50, 3, 4])
    for packed in (False, True):
        plan = plan_of(lengths, BatchRules(tokens=12, packed=packed))
        assert [1] in plan
        assert len(plan) == 2


def test_ranks_get_equal_shares_by_halving_the_batches_with_most_rows():
    lengths = np.array([8, 8, 1, 1, 1, 1])
    plan = plan_of(lengths, BatchRules(tokens=8, ranks=2, seed=None))
    assert sorted(map(len, plan)) == [1, 1, 2, 2]


def test_single_rows_that_do_not_divide_leave_a_rank_without_a_batch():
    plan = plan_of(np.array([9, 9, 9]), BatchRules(tokens=10, ranks=2, seed=None))
    assert plan == [[0], [1], [2], []]


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({}, r"no limit \(.*'tokens': None.*\)\. Set a number of tokens, or of rows"),
        ({"rows": 4, "packed": True}, "no limit"),
        ({"tokens": 0}, r"tokens=0\. Set it to at least 1"),
        ({"tokens": 9, "ranks": 0}, r"ranks=0\. Set it to at least 1"),
    ],
)
def test_rules_that_bound_nothing_are_refused(rules, message):
    with pytest.raises(UserError, match=message):
        BatchRules(**rules)


def test_the_budget_is_the_given_one_or_that_of_the_rows():
    lengths = np.array([10, 20, 30])
    assert token_budget(lengths, rows=4, tokens=64) == 64
    assert token_budget(lengths, rows=4, tokens=None) == 80
    assert token_budget(lengths, rows=1, tokens=None) == 30
