"""Checks of the backward pass: which tensors get gradients, and what is kept in memory for it."""

import weakref

import torch
from torch import Tensor, nn

from llama_adapter.adapters.structure import find_layer_stack
from tests.adapters.matrix.subjects import Subject, gradients, trainable
from tests.adapters.matrix.tiny_models import loss, output

_ZERO = 1e-6  # of the largest gradient: what rounding leaves of an exact zero
_REACHED = 3e-5


def gradients_reach_all_and_only_trainable(subject: Subject) -> None:
    model = subject.adapt(subject.everything())
    inputs = subject.inputs()
    first = gradients(model, inputs)
    _assert_reached(subject, first)
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen
    assert not any("zero_init" in name for name in frozen)
    assert not [
        name for name, parameter in model.named_parameters() if name in frozen and parameter.grad is not None
    ]
    with torch.no_grad():  # an evaluation between two training steps must leave no trace
        output(model.eval(), subject.inputs(seed=1))
    for name, gradient in gradients(model, inputs).items():
        assert torch.equal(gradient, first[name]), name


def prompts_wait_for_their_gates(subject: Subject) -> None:
    """Exactly zero gradient for prompts while every gate is zero, and for all their rows one step later."""
    model = subject.adapt(subject.prompts(), noise=0)
    inputs = subject.inputs()
    prompts, gates = (
        {name: p for name, p in trainable(model).items() if part in name} for part in ("prompt", "gate")
    )
    prompts = {name: tensor for name, tensor in prompts.items() if name not in gates}
    first = gradients(model, inputs)
    assert len(prompts) == len(gates) == 3
    assert all(first[name].count_nonzero() == 0 for name in prompts)
    assert all(first[name].count_nonzero() == gates[name].numel() == 4 for name in gates)
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    second = gradients(model, inputs)
    assert all(second[name].abs().amax(1).count_nonzero() == len(tensor) for name, tensor in prompts.items())


def activation_checkpointing_keeps_gradients(subject: Subject) -> None:
    model = subject.adapt(subject.everything()).train()
    inputs = subject.inputs()
    plain = gradients(model, inputs)
    model.base_model.model.activation_checkpointing_enable()
    largest = max(gradient.abs().max() for gradient in plain.values())
    for name, gradient in gradients(model, inputs).items():
        torch.testing.assert_close(gradient, plain[name], rtol=1e-4, atol=1e-6 * largest.item(), msg=name)


def nothing_is_kept_below_the_adapter(subject: Subject) -> None:
    """Adapting the top layer alone keeps no activation of the layers below, with checkpointing or not."""
    inputs = subject.inputs(rows=4, length=24)
    kept = {}
    for checkpointing in (False, True):
        for layers in (1, None):
            model = subject.adapt(_on_layers(subject, layers)).train()
            if checkpointing:
                model.base_model.model.activation_checkpointing_enable()
                model.base_model.model.enable_input_require_grads()  # as older trainers and PEFT do
            watch = _Watch(model, first=0 if layers is None else 2)
            with watch:
                loss(model, inputs).backward()
            assert watch.reached
            assert watch.below == 0
            assert not watch.input_needs_gradient
            kept[checkpointing, layers] = watch.inside
    assert kept[False, 1] < 0.5 * kept[False, None]  # one layer of three
    assert kept[True, 1] < 0.5 * kept[True, None]
    assert kept[True, None] < 0.6 * kept[False, None]  # and checkpoints are really used


def _on_layers(subject: Subject, layers: int | None):
    return subject.everything(prompt_layers=layers, delta_layers=layers, norms={"final_norm": False})


def _assert_reached(subject: Subject, found: dict[str, Tensor]) -> None:
    sizes = {name: gradient.abs().max().item() for name, gradient in found.items()}
    largest = max(sizes.values())
    zeros = {name for name in sizes if any(part in name for part in subject.structural_zeros)}
    assert bool(zeros) == bool(subject.structural_zeros)
    assert {name: size for name, size in sizes.items() if name in zeros and size > _ZERO * largest} == {}
    assert {
        name: size for name, size in sizes.items() if name not in zeros and size < _REACHED * largest
    } == {}


class _Kept:
    """A tensor that autograd keeps; it dies with the graph node that asked for it."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


class _Watch(torch.autograd.graph.saved_tensors_hooks):
    """Bytes kept for the backward pass: below the first adapted layer, and from it up."""

    def __init__(self, model: nn.Module, first: int) -> None:
        super().__init__(self._pack, lambda kept: kept.tensor)
        self.below = self.inside = 0
        self.reached = self.input_needs_gradient = False
        self._kept: weakref.WeakSet[_Kept] = weakref.WeakSet()
        self._weights = {p.untyped_storage().data_ptr() for p in (*model.parameters(), *model.buffers())}
        layers = model.get_submodule(find_layer_stack(model))
        layers[first].register_forward_pre_hook(self._enter, with_kwargs=True, prepend=True)
        layers[-1].register_forward_hook(self._leave)

    def _enter(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        if self.reached:  # again, when a checkpoint is recomputed
            return
        self.reached = True
        self.below = self._bytes()
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        self.input_needs_gradient = any(tensor.requires_grad for tensor in tensors)

    def _leave(self, module: nn.Module, args: tuple, result: object) -> None:
        self.inside = self.inside or self._bytes() - self.below

    def _pack(self, tensor: Tensor) -> _Kept:
        kept = _Kept(tensor)
        self._kept.add(kept)
        return kept

    def _bytes(self) -> int:
        storages = {
            kept.tensor.untyped_storage().data_ptr(): kept.tensor.untyped_storage() for kept in self._kept
        }
        return sum(storage.nbytes() for pointer, storage in storages.items() if pointer not in self._weights)
