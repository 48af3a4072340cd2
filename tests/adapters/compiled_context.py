"""A program that fails if compiled passes differ from plain ones where rows have contexts of their own.

A process of its own because the type checks of the test run, which wrap every function of the package, cannot
be traced. ``python -m tests.adapters.compiled_context`` runs it.
"""

import warnings

import torch

from llama_adapter import ZeroInitConfig
from llama_adapter.adapters.conditions import prompt_context
from tests.adapters import tiny


def make_model():
    """Two layers, two adapters with prompts, biases, LoRA and norms."""
    options = {"preset": "v21", "prompt_layers": -1, "delta_layers": 1}
    model = tiny.adapted(tiny.llama(num_hidden_layers=2), **options)
    model.add_adapter("other", ZeroInitConfig(task_type="CAUSAL_LM", **options))
    model.set_adapter("other")
    tiny.disturb(model, seed=4)
    return model


def graphs():
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


@torch.no_grad()
def check_adapter_names():
    """One graph per choice of adapters."""
    model = make_model()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    for names in (["other", "default"], ["default", "__base__"], ["default", "__base__"]):
        want = model(tiny.ids(), adapter_names=names).logits
        got = compiled(tiny.ids(), adapter_names=names).logits
        torch.testing.assert_close(got, want, atol=1e-5, rtol=0)
    assert graphs() == 2, graphs()


def check_conditions(packed, checkpointing):
    """Logits and gradients of several batches, in one graph, the context opened around it.

    A checkpointed layer is no part of a graph: its hooks have effects that torch does not trace there.
    """
    model = make_model()
    if checkpointing:
        model.config.use_cache = False
        model.train().get_base_model().activation_checkpointing_enable()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=not checkpointing)
    before = graphs()
    for seed in range(3):
        added = torch.randn(2, 10, 64, generator=torch.Generator().manual_seed(seed)).requires_grad_()
        index = torch.tensor([[0] * 5 + [1] * 7, [1] * (5 + seed) + [0] * (7 - seed)]) if packed else None
        found = []
        for each in (model, compiled):
            with prompt_context(model, added, record_index=index):
                logits = each(tiny.ids()).logits
            logits.square().mean().backward()
            found.append((logits.detach(), added.grad))
            added.grad = None
        torch.testing.assert_close(found[1], found[0], atol=1e-5, rtol=1e-4)
        assert found[0][1].any()
    assert checkpointing or graphs() == before + 1, graphs() - before


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    check_adapter_names()
    for case in ((False, False), (True, False), (False, True)):
        torch._dynamo.reset()
        check_conditions(*case)
