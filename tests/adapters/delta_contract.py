"""What every kind of linear delta must keep, the project's own and those of others, as one function each.

``test_deltas.py`` runs all of them on every registered kind. A delta in another package imports this file's
``CHECKS`` and does the same: each takes the kind and two mappings of options for adapters that differ.
"""

import copy
import inspect
from dataclasses import asdict

import torch
from peft import PeftModel, get_peft_model
from torch import nn

from llama_adapter import ZeroInitConfig
from llama_adapter.adapters.deltas import DELTAS, Delta, parse_delta
from llama_adapter.adapters.linear import ZeroInitLinear
from tests.tiny import tiny_llama

N, M = 6, 4
IDS = torch.tensor([[1, 5, 9, 30, 7], [1, 8, 2, 77, 31]])


def made(kind, options):
    return DELTAS[kind][1](parse_delta({"kind": kind, **options}), N, M)


def stirred(module, seed=0):
    """The module with every parameter away from its start."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return module


def adapted(kind, options, other=None):
    """A model with one adapter of the kind, or with two that differ in options and weights."""

    def config(chosen):
        deltas = [{"kind": kind, **chosen}]
        return ZeroInitConfig(task_type="CAUSAL_LM", prompt_length=2, deltas=deltas)

    model = get_peft_model(tiny_llama(), config(options), adapter_name="a")
    stirred(model, 1)
    if other is not None:
        model.add_adapter("b", config(other))
        model.set_adapter("b")
        stirred(model, 2)
        model.set_adapter("a")
    return model.eval()


def logits(model, **rows):
    with torch.no_grad():
        return model(input_ids=IDS, **rows).logits


def starts_as_the_identity(kind, one, other):
    for options in (one, other):
        delta, x, y = made(kind, options), torch.randn(3, N), torch.randn(3, M)
        assert torch.equal(delta.on_input(x), x)
        assert torch.equal(delta.on_output(y, x), y)


def trains_whole(kind, one, other):
    for options in (one, other):
        delta = stirred(made(kind, options))
        x = torch.randn(2, 5, N)
        base = nn.Linear(N, M)
        delta.on_output(base(delta.on_input(x)), x).square().sum().backward()
        assert list(delta.parameters())
        assert all(parameter.grad.any() for parameter in delta.parameters())


def keeps_the_dtype_of_what_it_gets(kind, one, other):
    for options in (one, other):
        delta, x, y = stirred(made(kind, options)), torch.randn(3, N).half(), torch.randn(3, M).half()
        assert delta.on_input(x).dtype == delta.on_output(y, x).dtype == torch.float16


def folds_into_a_weight(kind, one, other):
    for options in (one, other):
        delta = stirred(made(kind, options))
        for has_bias in (False, True):
            base, x = nn.Linear(N, M, bias=has_bias).double(), torch.randn(2, N).double()
            want = delta.on_output(base(delta.on_input(x)), x)
            weight, bias = delta.fold_output(delta.fold_input(base.weight), base.bias)
            torch.testing.assert_close(nn.functional.linear(x, weight, bias), want, atol=1e-6, rtol=1e-6)
            assert (bias is not None) == (has_bias or delta.adds_bias)


def says_what_is_neutral(kind, one, other):
    delta = stirred(made(kind, one))
    if delta.neutral is None:
        return
    parameters = dict(delta.named_parameters())
    assert parameters.keys() == delta.neutral.keys()
    with torch.no_grad():
        for name, value in delta.neutral.items():
            parameters[name].fill_(value)
    x, y = torch.randn(3, N), torch.randn(3, M)
    assert torch.equal(delta.on_input(x), x)
    assert torch.equal(delta.on_output(y, x), y)


def serves_rows_of_several_adapters(kind, one, other):
    """Row by row as alone: whatever the adapters differ in, in any order, and beside rows without any."""
    model = adapted(kind, one, other)
    alone = {}
    for name in ("a", "b"):
        model.set_adapter(name)
        alone[name] = logits(model)
    with model.disable_adapter():
        alone["__base__"] = logits(model)
    assert not torch.allclose(alone["a"], alone["b"], atol=1e-3), "the two adapters must differ"
    for names in (["a", "b"], ["b", "a"], ["a", "__base__"], ["__base__", "b"], ["b", "b"]):
        together = logits(model, adapter_names=names)
        for row, name in enumerate(names):
            torch.testing.assert_close(together[row], alone[name][row], atol=1e-4, rtol=1e-4)


def keeps_what_differs_per_class_on_the_class(kind, one, other):
    """Prompts of a batch pass through together, so an instance cannot decide whether they see it."""
    for options in (one, other):
        delta = made(kind, options)
        for name in ("applies_to_prompts", "adds_bias", "neutral"):
            assert name not in vars(delta)
            assert not isinstance(inspect.getattr_static(type(delta), name), property)


def survives_its_file(kind, one, other, folder):
    for number, options in enumerate((one, other)):
        place = folder / f"{kind}-{number}"
        model = adapted(kind, options)
        model.save_pretrained(place, selected_adapters=["a"])
        for low_memory in (False, True):
            again = PeftModel.from_pretrained(tiny_llama(), place / "a", low_cpu_mem_usage=low_memory)
            torch.testing.assert_close(logits(again.eval()), logits(model), atol=1e-4, rtol=1e-5)
        config = parse_delta({"kind": kind, **options})
        assert parse_delta(asdict(config)) == config


def copies(kind, one, other):
    model = adapted(kind, one, other)
    twin = copy.deepcopy(model)
    before = logits(model)
    assert torch.equal(logits(twin), before)
    stirred(twin, 9)
    assert not torch.equal(logits(twin), before)
    assert torch.equal(logits(model), before)


def serves_a_map_of_any_kind(kind, one, other):
    """The tuner's layer reads sizes, never weights: a quantised map has none."""

    class Quantised(nn.Module):
        in_features, out_features = N, M

        def __init__(self):
            super().__init__()
            self.register_buffer("codes", torch.randint(-128, 127, (M, N), dtype=torch.int8))

        def forward(self, x):
            return x @ (self.codes.float() / 64).T

    layer = ZeroInitLinear(Quantised())
    layer.add_delta("default", parse_delta({"kind": kind, **one}))
    layer.set_adapter("default")
    assert issubclass(DELTAS[kind][1], Delta)
    stirred(layer)(torch.randn(3, N)).sum().backward()
    assert all(p.grad is not None for p in layer.parameters())


CHECKS = [
    starts_as_the_identity,
    trains_whole,
    keeps_the_dtype_of_what_it_gets,
    folds_into_a_weight,
    says_what_is_neutral,
    serves_rows_of_several_adapters,
    keeps_what_differs_per_class_on_the_class,
    survives_its_file,
    copies,
    serves_a_map_of_any_kind,
]
