import copy
import functools
import pickle
import threading

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from llama_adapter import UserError
from llama_adapter.forward_context import (
    CarriesContext,
    Conditions,
    Routing,
    carry_into_checkpoints,
    copies_per_record,
    current,
    recompute_context,
    within,
)
from tests.adapters import tiny

ROUTING = Routing(("a", "b"), frozenset())


def test_blocks_nest_and_end():
    conditions = Conditions({})
    with within(routing=ROUTING):
        with within(conditions=conditions):
            assert current().routing is ROUTING
            assert current().conditions is conditions
        assert current().conditions is None
    assert current().routing is None


def test_an_error_ends_a_block():
    with pytest.raises(ZeroDivisionError), within(routing=ROUTING):
        raise ZeroDivisionError
    assert current().routing is None


def test_another_thread_starts_without():
    seen = []
    with within(routing=ROUTING):
        thread = threading.Thread(target=lambda: seen.append(current().routing))
        thread.start()
        thread.join()
    assert seen == [None]


def test_recomputation_in_another_thread_sees_the_context_of_its_forward():
    """As backward passes on a GPU run."""
    seen = []
    with within(routing=ROUTING):
        _, again = recompute_context()

    def recompute():
        for _ in range(2):
            with again:
                seen.append(current().routing)
        seen.append(current().routing)

    thread = threading.Thread(target=recompute)
    thread.start()
    thread.join()
    assert seen == [ROUTING, ROUTING, None]


def test_recompute_context_is_a_context_function_of_torch():
    seen = []

    def layer(x):
        seen.append(current().routing)
        return x.sin()

    x = torch.randn(3, requires_grad=True)
    with within(routing=ROUTING):
        y = checkpoint(layer, x, use_reentrant=False, context_fn=recompute_context)
    y.sum().backward()
    assert seen == [ROUTING, ROUTING]


def test_checkpoints_are_decorated_once_and_keep_their_options():
    model = tiny.llama()
    model.activation_checkpointing_enable({"use_reentrant": False})
    carry_into_checkpoints(model)
    decorated = model.model.layers[0]._gradient_checkpointing_func
    carry_into_checkpoints(model)
    assert model.model.layers[0]._gradient_checkpointing_func is decorated
    assert decorated.keywords["use_reentrant"] is False


def test_decorated_checkpoints_are_copied_and_pickled():
    decorated = CarriesContext(functools.partial(checkpoint, use_reentrant=False))
    for each in (copy.deepcopy(decorated), pickle.loads(pickle.dumps(decorated))):
        assert each(torch.sin, torch.ones(1)) == torch.sin(torch.ones(1))


def test_rows_are_multiples_of_records():
    assert copies_per_record(6, 3, "conditions") == 2
    with pytest.raises(
        UserError, match="A batch of 5 rows does not go with 3 conditions. Use one for each row"
    ):
        copies_per_record(5, 3, "conditions")


def test_what_is_kept_lasts_for_a_pass_without_gradients():
    made = []
    with torch.no_grad():
        for _ in range(2):
            ROUTING.keep("place", lambda: made.append(1))
    assert len(made) == 1
    ROUTING.keep("place", lambda: made.append(1))
    assert len(made) == 2
