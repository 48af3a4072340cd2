"""Another forward for a module, for a while.

What is unusual: the function is set on the instance, inside hooks, wrappers and parameter names, which all
stay as they are; so FSDP has gathered the module's weights when it runs, and a state dict does not change.
"""

from collections.abc import Callable
from typing import Any

from torch import nn

Forward = Callable[..., Any]


def replace_forward(module: nn.Module, make: Callable[[Forward], Forward]) -> Callable[[], None]:
    """Replace a module's forward.

    Args:
        module: Whose.
        make: Gets the forward so far and returns the new one.

    Returns:
        What takes the replacement back; of several, the last one first.
    """
    before = module.__dict__.get("forward")  # of another replacement; usually the class has it
    module.forward = make(module.forward)

    def undo() -> None:
        if before is None:
            module.__dict__.pop("forward", None)
        else:
            module.forward = before

    return undo
