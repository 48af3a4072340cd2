"""What keeping the output of the frozen layers below the first adapter would save in a planned run.

The arithmetic is the trainer's own (``training.layer_saving``), with stated rates in place of measured ones.
It knows no trainer.
"""

from dataclasses import dataclass

from torch import nn

from llama_adapter.training.frozen_stack import find_frozen_stack
from llama_adapter.training.layer_saving import LowerLayerSaving, lower_layer_saving

DISK_BYTES_PER_SECOND = 1e9
"""What a disk is taken to read and write: an NVMe drive does 2e9 and more, network storage 1e8 to 1e9."""


@dataclass(frozen=True)
class LowerLayers:
    """The frozen layers below the first adapted one."""

    layers: int
    """How many they are."""
    saving: LowerLayerSaving
    """What keeping their output costs and gives, per device."""


def lower_layers(
    model: nn.Module, tokens: int, flops_per_second: float, bytes_per_value: int
) -> LowerLayers | None:
    """Looks below the first adapted layer; None where there is nothing.

    Args:
        model: with its adapter, with or without content.
        tokens: of an epoch on one device.
        flops_per_second: that the device reaches.
        bytes_per_value: of the layers' output.
    """
    stack = find_frozen_stack(model)
    if isinstance(stack, str) or not stack.below:
        return None
    saving = lower_layer_saving(
        tokens=tokens,
        hidden_size=stack.hidden_size,
        layers_below=len(stack.below),
        flops_per_layer=2 * stack.weights_below / len(stack.below),
        flops_per_second=flops_per_second,
        bytes_per_second=DISK_BYTES_PER_SECOND,
        bytes_per_value=bytes_per_value,
    )
    return LowerLayers(len(stack.below), saving)
