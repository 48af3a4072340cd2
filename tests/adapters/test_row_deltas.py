from hypothesis import given
from hypothesis import strategies as st

from llama_adapter.adapters.row_deltas import common_order

KINDS = ["bias", "output_scale", "input_scale", "lora"]
ORDERS = st.lists(st.lists(st.sampled_from(KINDS), unique=True), min_size=1, max_size=5)


@given(ORDERS)
def test_every_order_is_kept(orders):
    steps = common_order(orders)
    for place, order in enumerate(orders):
        assert [kind for kind, turn in steps if place in turn] == order


@given(st.permutations(KINDS), st.lists(st.sets(st.sampled_from(KINDS)), min_size=1, max_size=4))
def test_orders_that_agree_take_one_step_per_kind(agreed, chosen):
    orders = [[kind for kind in agreed if kind in kinds] for kinds in chosen]
    steps = common_order(orders)
    assert len(steps) == len(set().union(*chosen))


def test_orders_that_disagree_take_a_kind_twice():
    steps = common_order([["bias", "output_scale"], ["output_scale", "bias"]])
    assert [kind for kind, _ in steps] == ["bias", "output_scale", "bias"]
