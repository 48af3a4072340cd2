"""What the tuner layers of this method share: several adapters per module, merged and taken out again.

A merged layer keeps the parameters that its base had, so taking adapters out gives the base back to the bit:
what a scale did to a weight could not be divided out again where it was small.
"""

import warnings
from collections.abc import Callable
from typing import TypeVar, cast

import torch
from jaxtyping import Float
from peft.tuners.tuners_utils import BaseTunerLayer, check_adapters_to_merge
from torch import Tensor, nn

from llama_adapter.errors import UserError
from llama_adapter.forward_context import Conditions, Routing, current

Attach = Callable[[str, nn.Module, str, nn.Module], None]
"""Attaches one part of an adapter: (adapter name, parent module, name in the parent, module) -> None."""

Layer = TypeVar("Layer", bound="ZeroInitLayer")

Plan = dict[str, Attach]
"""Path of a module -> how to attach a part to it."""


class ZeroInitLayer(nn.Module, BaseTunerLayer):
    """Base of the method's tuner layers: prompts beside attention, wrappers of linear maps and norms."""

    other_param_names = ()

    def __init__(self) -> None:
        super().__init__()
        self.merged_adapters: list[str] = []
        self._of_base: dict[str, nn.Parameter | None] = {}  # what merging replaced

    def has_adapter(self, adapter_name: str) -> bool:
        """Whether an adapter has a part here."""
        return adapter_name in self._get_available_adapters()

    def drop_adapter(self, adapter_name: str) -> None:
        """Take one adapter's parts away, whichever adapter is active: another of its name takes its place."""
        if adapter_name in self.merged_adapters:
            self.unmerge()
        for attribute in self.adapter_layer_names:
            parts = cast("nn.ModuleDict", self._modules[attribute])
            if adapter_name in parts:
                del parts[adapter_name]

    def check_foldable(self, adapter_names: list[str]) -> None:
        """Raise if no parameters of the base layer can do what these adapters do; ``folded`` asks first."""

    def folded(self, adapter_names: list[str]) -> dict[str, Tensor]:
        """Parameters of the base layer, by name, that do what these adapters do as well."""
        self.check_foldable(adapter_names)
        raise NotImplementedError(f"A {type(self).__name__} does not say what {adapter_names} fold into.")

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Put parameters that do what adapters do in the place of the base layer's.

        Args:
            safe_merge: whether values that are not finite are refused.
            adapter_names: which adapters; None for the active ones.

        Raises:
            UserError: the base layer cannot take them, or they are not finite. Nothing was changed.
        """
        here = [name for name in adapter_names or self.active_adapters if self.has_adapter(name)]
        names = check_adapters_to_merge(self, here) if here else []
        if not names:
            return
        parameters = self.folded(names)
        if safe_merge:
            _check_finite(parameters, names)
        base = self.get_base_layer()
        for name, value in parameters.items():
            self._of_base.setdefault(name, base._parameters.get(name))
            base.register_parameter(name, nn.Parameter(value, requires_grad=False))
        self.merged_adapters = [*self.merged_adapters, *names]

    def unmerge(self) -> None:
        """Give the base layer its own parameters back."""
        if not self.merged:
            warnings.warn("Already unmerged. Nothing to do.", stacklevel=2)
            return
        base = self.get_base_layer()
        for name, parameter in self._of_base.items():
            if parameter is not None:  # the model may have been moved meanwhile
                parameter.data = parameter.data.to(cast("Tensor", base._parameters[name]))
            base.register_parameter(name, parameter)
        self._of_base = {}
        self.merged_adapters = []

    def check_merge(self, safe_merge: bool, adapter_names: list[str]) -> None:
        """Raise what ``merge`` would raise; so a model is asked whole before any of its layers is changed."""
        names = [n for n in adapter_names if self.has_adapter(n) and n not in self.merged_adapters]
        if names and safe_merge:
            _check_finite(self.folded(names), names)
        elif names:
            self.check_foldable(names)


def _check_finite(parameters: dict[str, Tensor], adapter_names: list[str]) -> None:
    """Refuse values that are not finite.

    Raises:
        UserError: there are some.
    """
    for name, value in parameters.items():
        if not torch.isfinite(value).all():
            raise UserError(
                f"The {name} that adapters {adapter_names} would be merged into has NaNs or infinities then: "
                f"an adapter is broken. Load one that was saved earlier, or train it again."
            )


class Value(nn.Module):
    """One adapter's parameter as a module of its own.

    Its path then has the adapter's name between two dots, by which other libraries find what belongs to an
    adapter: TRL's DPO makes its reference by copying ``.default.`` to ``.ref.``, and a ParameterDict's paths,
    which end in the name, would be left out without a word.
    """

    def __init__(self, value: Float[Tensor, "..."]) -> None:
        super().__init__()
        self.value = nn.Parameter(value)


def value_of(adapter_name: str, values: nn.ModuleDict) -> Float[Tensor, "..."]:
    """One adapter's parameter out of the ``Value`` modules of all."""
    return cast(Value, values[adapter_name]).value


def active_in(layer: ZeroInitLayer) -> list[str]:
    """Names of the adapters that act in this forward pass, those that are merged among them."""
    if layer.disable_adapters:
        if layer.merged:
            layer.unmerge()
        return []
    return list(layer.active_adapters)


def routing_in(layer: ZeroInitLayer) -> Routing | None:
    """Which adapter each row goes through here, where that is said row by row and adapters are not off."""
    routing = current().routing
    if routing is None or layer.disable_adapters or id(layer) not in routing.layers:
        return None
    return routing


def condition_in(layer: ZeroInitLayer) -> tuple[Conditions, Float[Tensor, "R _ H"]] | None:
    """What is added to the prompts of each record here, if anything."""
    conditions = current().conditions
    if conditions is None or id(layer) not in conditions.by_layer:
        return None
    return conditions, conditions.by_layer[id(layer)]


def wrap_once(
    parent: nn.Module, name: str, target: nn.Module, wrapper: Callable[[nn.Module], Layer]
) -> Layer:
    """The wrapper around ``target``, put into its parent if it is not there yet."""
    if isinstance(target, ZeroInitLayer):
        return cast("Layer", target)
    layer = wrapper(target)
    setattr(parent, name, layer)
    return layer
