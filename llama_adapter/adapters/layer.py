"""What the tuner layers of this method share: several adapters per module, no merging into a live model."""

from collections.abc import Callable
from typing import TypeVar, cast

from jaxtyping import Float
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

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

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Not offered on a live model.

        Raises:
            NotImplementedError: says what to do instead.
        """
        raise NotImplementedError(
            f"Adapters {adapter_names or 'that are active'} do not merge into a live model: gated prompts "
            f"have a softmax of their own, which no weight expresses. Keep them attached or use unload(); "
            f"adapters without prompts take merge_and_unload()."
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
    """Names of the adapters that act in this forward pass."""
    return [] if layer.disable_adapters else list(layer.active_adapters)


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
