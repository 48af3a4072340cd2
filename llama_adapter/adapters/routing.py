"""Several adapters in one batch: each row goes through its own.

PEFT's interface is ``adapter_names=[...]``, one name per row, on a ``PeftModel``'s forward and ``generate``;
the tuner hands it to ``route``. How rows find their adapter when a generation multiplies them is said in
``forward_context.py``.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from peft.utils import AuxiliaryTrainingWrapper
from torch import nn

from llama_adapter.adapters.layer import ZeroInitLayer
from llama_adapter.adapters.linear import ZeroInitLinear
from llama_adapter.errors import UserError
from llama_adapter.forward_context import Routing, copies_per_record, within

BASE = "__base__"
"""PEFT's name for a row that goes through no adapter."""


@contextmanager
def route(model: nn.Module, names: Any) -> Iterator[None]:
    """In passes of ``model`` inside the block each row goes through its own adapter.

    Args:
        model: a model with adapters, in evaluation mode.
        names: a list, one per record; ``__base__`` for none.

    Raises:
        UserError: an adapter is unknown, or the model is being trained or routes tokens itself.
    """
    layers = [(path, module) for path, module in model.named_modules() if isinstance(module, ZeroInitLayer)]
    _check(model, layers, names)
    routing = Routing(tuple(names), frozenset(id(layer) for _, layer in layers))
    with ExitStack() as stack:
        for module in model.modules():
            if isinstance(module, AuxiliaryTrainingWrapper):
                stack.callback(_tell(module, routing).remove)
        stack.enter_context(within(routing=routing))
        yield


def _check(model: nn.Module, layers: list[tuple[str, ZeroInitLayer]], names: Any) -> None:
    """Refuse names that cannot be."""
    if isinstance(names, str) or not names or not all(isinstance(name, str) for name in names):
        raise UserError(f"adapter_names is {names!r}. Use a list with the name of an adapter for each row.")
    if model.training:
        raise UserError(
            f"adapter_names={list(names)!r} came in training mode. Use model.eval(); one adapter trains at a "
            f"time, by model.set_adapter(name)."
        )
    known = {BASE}.union(*(layer._all_available_adapter_names() for _, layer in layers))
    if unknown := sorted(set(names) - known):
        raise UserError(f"There is no adapter {unknown[0]!r}. Use some of {sorted(known)}.")
    if any(layer.merged for _, layer in layers):
        raise UserError(
            f"adapter_names={list(names)!r} came while adapters are merged, which act on every row. Call "
            f"unmerge_adapter() first."
        )
    # Experts get tokens of all rows in an order of their own, so that no row can be told from another.
    for path, layer in layers:
        if ".experts." in path and isinstance(layer, ZeroInitLinear):
            raise UserError(
                f"{path!r} is an expert, which gets tokens without their rows, so adapters cannot differ by "
                f"row. Use one adapter per batch."
            )


def _tell(wrapper: nn.Module, routing: Routing) -> Any:
    """Tell one of PEFT's whole trained modules, while rows are routed, which rows are whose."""

    def add_names(
        module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Forward pre-hook; rows reach the module as the batch has them."""
        copies = copies_per_record(len(args[0]), len(routing.names), "adapter names")
        own = [name if name in module._adapters else BASE for name in routing.names]
        names = [name for name in own for _ in range(copies)]
        return args, {**kwargs, "adapter_names": names}

    return wrapper.register_forward_pre_hook(add_names, with_kwargs=True)
