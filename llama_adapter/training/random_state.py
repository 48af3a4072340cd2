"""The state of all random generators that a pass may use, taken before it and set again to repeat it."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.checkpoint import get_device_states, set_device_states


@dataclass(frozen=True)
class RandomState:
    """Of the CPU, and of every other device that holds one of the given tensors."""

    cpu: UInt8[Tensor, " _"]
    """Of the CPU's generator."""
    devices: list[int]
    """Indices of the other devices."""
    states: list[Tensor]
    """Of their generators."""

    @classmethod
    def now(cls, *given: Any) -> "RandomState":
        """Take the state.

        Args:
            *given: What the pass computes with; tensors in it name the devices.
        """
        return cls(torch.get_rng_state(), *get_device_states(*given))

    def restore(self) -> None:
        """Make what follows draw what followed then."""
        torch.set_rng_state(self.cpu)
        set_device_states(self.devices, self.states)
