"""What waits for the backward pass and what is computed again there: activation checkpointing by policy.

A frozen base keeps few tensors, most of them inside the MLPs, whose inner width is three to four times that
of the layer; so there is more between all and nothing than to checkpoint whole layers. What is unusual: a
module is checkpointed only in a pass that records it, so frozen layers below the first adapter cost nothing,
and embeddings are never made to require gradients. Nothing is wrapped: names and state dicts stay as they
are. It knows layers by transformers' class for them, MLPs by the names they have there; no trainer.

Letters: P positions, I inner width.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from llama_adapter.errors import UserError
from llama_adapter.training.forwards import Forward, replace_forward

CheckpointingPolicy: TypeAlias = Literal["auto", "none", "selective", "mlp", "layer"]

_MLP_NAMES = ("mlp", "feed_forward", "ffn", "block_sparse_moe", "moe", "shared_mlp")
"""Names of a layer's MLP, dense or a mixture, in transformers' modeling files."""

_ACTIVATION_PREFIX = "act"
"""How the names of activation functions begin there: ``act``, ``act_fn``, ``activation_fn``."""

Undo = Callable[[], None]


def apply_checkpointing(model: nn.Module, policy: CheckpointingPolicy, every: int = 1) -> Undo:
    """Make a model keep less for the backward pass, at the same gradients.

    Args:
        model: A transformers model, adapted or not.
        policy: What is computed again. ``selective``: outputs of the MLPs' activation functions, from their
            inputs, which costs next to nothing. ``mlp``: the MLPs. ``layer``: whole layers. ``auto``:
            ``selective``, or nothing in a model that has no such functions.
        every: Checkpoint only one of this many layers, from the first on.

    Returns:
        What takes it back.

    Raises:
        UserError: When the model has no such layers, or they have no such MLPs.
    """
    policy = settled(model, policy)
    undo: list[Undo] = []
    if policy != "none":
        layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
        chosen = layers[::every]
        undo = _checkpoint_layers(model, chosen) if policy == "layer" else _change_mlps(chosen, policy)
    if policy != "none" and not undo:
        raise UserError(
            f"checkpointing={policy!r} finds nothing to checkpoint in {type(model).__name__}. "
            f"Use checkpointing={'none' if not layers else 'layer'}."
        )

    def undo_all() -> None:
        while undo:
            undo.pop()()

    return undo_all


def _change_mlps(layers: list[GradientCheckpointingLayer], policy: str) -> list[Undo]:
    """Both policies that act inside a layer."""
    undo: list[Undo] = []
    for mlp in _mlps(layers):
        if policy == "mlp":
            undo.append(replace_forward(mlp, partial(_checkpointed, mlp)))
            continue
        activations = _activations(mlp)
        if activations:
            recomputed = RecomputedActivations()
            undo.extend(replace_forward(module, recomputed.of) for module in activations)
            undo.append(replace_forward(mlp, recomputed.around))
    return undo


def settled(model: nn.Module, policy: CheckpointingPolicy) -> CheckpointingPolicy:
    """What ``auto`` means for a model; any other policy is itself."""
    if policy != "auto":
        return policy
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    return "selective" if any(_activations(mlp) for mlp in _mlps(layers)) else "none"


def _activations(mlp: nn.Module) -> list[nn.Module]:
    """Activation functions of an MLP, those without parameters of their own."""
    named = ((name.rpartition(".")[2], module) for name, module in mlp.named_modules())
    return [
        module
        for name, module in named
        if name.startswith(_ACTIVATION_PREFIX) and not list(module.parameters())
    ]


def _mlps(layers: list[GradientCheckpointingLayer]) -> Iterator[nn.Module]:
    for layer in layers:
        children = dict(layer.named_children())
        yield from (children[name] for name in _MLP_NAMES if name in children)


def _checkpointed(module: nn.Module, forward: Forward) -> Forward:
    """A forward that keeps its inputs only, where it is recorded."""

    def checkpointed(*args: Any, **kwargs: Any) -> Any:
        if not (module.training and _is_recorded(module, args, kwargs)):
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    return checkpointed


def _checkpoint_layers(model: nn.Module, layers: list[GradientCheckpointingLayer]) -> list[Undo]:
    """Through transformers' own switches, which also keep caches out of layers that run twice."""
    undo: list[Undo] = []
    for module in model.modules() if layers else []:
        # Models themselves have the switch too; it turns their caches off.
        if hasattr(module, "gradient_checkpointing"):
            is_chosen = not isinstance(module, GradientCheckpointingLayer) or module in layers
            undo.append(_set(module, "gradient_checkpointing", is_chosen))
            undo.append(_set(module, "_gradient_checkpointing_func", _checkpoint_layer))
    return undo


def _checkpoint_layer(forward: Any, *args: Any) -> Any:
    """What a layer calls instead of its forward: a partial of it with the layer and the keywords."""
    if not _is_recorded(forward.args[0], args, forward.keywords):
        return forward(*args)
    return checkpoint(forward, *args, use_reentrant=False)


def _set(module: nn.Module, name: str, value: Any) -> Undo:
    """Set an attribute of the instance."""
    before = module.__dict__.get(name, _set)
    setattr(module, name, value)

    def undo() -> None:
        if before is _set:  # it was the class's
            delattr(module, name)
        else:
            setattr(module, name, before)

    return undo


def _is_recorded(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether autograd will keep anything of this pass."""
    if not torch.is_grad_enabled():
        return False
    given = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
    return any(tensor.requires_grad for tensor in [*given, *module.parameters()])


class RecomputedActivations:
    """Keeps activation functions' inputs in place of their outputs, for whatever in an MLP wants the outputs.

    In ``down(act(gate) * up)`` the product keeps ``act(gate)``, beside ``gate`` and ``up``: a third of what a
    frozen MLP keeps at its inner width, and the only part that is almost free to compute again.
    """

    def __init__(self) -> None:
        """For one MLP, of whatever number of experts."""
        self._made: dict[tuple[Any, ...], tuple[Forward, Tensor, StorageWeakRef]] = {}

    def of(self, function: Forward) -> Forward:
        """The forward of an activation function."""
        is_one_step: bool | None = None

        def forward(inner: Float[Tensor, "*P I"]) -> Float[Tensor, "*P I"]:
            nonlocal is_one_step
            output: Tensor
            if not _can_recompute() or not inner.requires_grad:
                output = function(inner)
                return output
            if is_one_step is None:
                is_one_step = _is_one_step(function, inner)
            output = function(inner) if is_one_step else _Recomputed.apply(inner, function)
            # The reference keeps no memory, but the address: no other tensor is taken for this one.
            reference = StorageWeakRef(output.untyped_storage())
            self._made[_place(output)] = (function, inner.detach(), reference)
            return output

        return forward

    def around(self, forward: Forward) -> Forward:
        """The forward of the MLP."""

        def watched(*args: Any, **kwargs: Any) -> Any:
            if not _can_recompute():
                return forward(*args, **kwargs)
            try:
                with saved_tensors_hooks(self._pack, _unpack):
                    return forward(*args, **kwargs)
            finally:
                self._made.clear()

        return watched

    def _pack(self, tensor: Shaped[Tensor, "..."]) -> tuple[Forward | None, Tensor]:
        """What is kept in place of a tensor: itself, or how to make it."""
        function, inner, _ = self._made.get(_place(tensor), (None, tensor, None))
        return function, inner


def _unpack(packed: tuple[Forward | None, Tensor]) -> Tensor:
    function, tensor = packed
    if function is None:
        return tensor
    with torch.no_grad():
        output: Tensor = function(tensor)
    return output


def _is_one_step(function: Forward, inner: Float[Tensor, "*P I"]) -> bool:
    """Whether autograd records a single operation, which keeps its input or its output anyway."""
    few = inner.detach().flatten()[:1].requires_grad_()
    node = function(few).grad_fn
    return all(hasattr(before, "variable") for before, _ in node.next_functions)


def _can_recompute() -> bool:
    """Not where nothing is recorded, nor under a compiler, which decides itself what it computes again."""
    return torch.is_grad_enabled() and not torch.compiler.is_compiling()


class _Recomputed(torch.autograd.Function):
    """A function that keeps nothing but its input, however many steps it has."""

    @staticmethod
    def forward(
        ctx: Any, inner: Float[Tensor, "*P I"], function: Callable[[Tensor], Tensor]
    ) -> Float[Tensor, "*P I"]:
        ctx.save_for_backward(inner)
        ctx.function = function
        return function(inner)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Float[Tensor, "*P I"]) -> tuple[Float[Tensor, "*P I"], None]:
        (inner,) = ctx.saved_tensors
        with torch.enable_grad():
            inner = inner.detach().requires_grad_()
            output = ctx.function(inner)
        return torch.autograd.grad(output, inner, upstream)[0], None


def _place(tensor: Shaped[Tensor, "..."]) -> tuple[Any, ...]:
    """Which memory a tensor shows, and how; also without content."""
    return (tensor.untyped_storage()._cdata, tensor.storage_offset(), tensor.shape, tensor.stride())
