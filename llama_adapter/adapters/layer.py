"""What the tuner layers of this method share: several adapters per module, no merging into a live model."""

from collections.abc import Callable

from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

Attach = Callable[[str, nn.Module, str, nn.Module], None]
"""Attaches one part of an adapter: (adapter name, parent module, name in the parent, module) -> None."""

Plan = dict[str, Attach]
"""Path of a module -> how to attach a part to it."""


class ZeroInitLayer(nn.Module, BaseTunerLayer):
    """Base of the method's tuner layers: prompts beside an attention module, wrappers of linear maps and
    norms.
    """

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
            "A zero_init adapter does not merge into a live model: gated prompts have a softmax of their own, which no "
            "weight can express. Keep the adapter attached, or unload() it to get the base model back."
        )


def active_in(layer: ZeroInitLayer) -> list[str]:
    """Names of the adapters that act in this forward pass."""
    return [] if layer.disable_adapters else list(layer.active_adapters)


def wrap_once(parent: nn.Module, name: str, target: nn.Module, wrapper: type[ZeroInitLayer]) -> ZeroInitLayer:
    """The wrapper around ``target``, put into its parent if it is not there yet."""
    if isinstance(target, wrapper):
        return target
    layer = wrapper(target)
    setattr(parent, name, layer)
    return layer
