"""What accompanies a forward pass to the adapter layers, beside its tensors: the one contract for all of it.

Two things differ from row to row of a batch: which adapter a row goes through (``Routing``), and what is
added to its prompts (``Conditions``). Both belong to R records. A batch of B rows has R * k of them, and row
b belongs to record b // k: k is 1 in a plain pass, and what beams and return sequences make it in a
generation, which repeats each record's row k times in place. Any other B is an error.

Neither travels through keyword arguments, which many models drop and ``generate`` refuses, nor through the
modules, which several threads may share: they are the state of the thread, for as long as a ``with`` block
lasts. A layer asks ``current()`` and looks itself up, so that other models that run inside the block see
nothing.

Activation checkpointing runs a layer a second time, during the backward pass, when the block is over or
another one is open, perhaps in another thread. ``recompute_context`` and ``CarriesContext`` give it the
state of its own forward pass.

This file does not know what the layers do with it.

Dimensions: R records, B batch rows, P prompt length, H hidden size.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from llama_adapter.errors import UserError
from llama_adapter.token_blocks import TokenBlocks

_state = threading.local()


@dataclass(frozen=True, eq=False)
class Routing:
    """Which adapter each record's rows go through."""

    names: tuple[str, ...]
    """Adapter of each of the R records; ``BASE`` in ``adapters/routing.py`` for none."""
    layers: frozenset[int]
    """``id`` of the layers that this speaks to."""
    kept: dict[Any, Any] = field(default_factory=dict)
    """What layers gathered for these rows, as long as the pass or generation lasts; see ``keep``."""

    def keep(self, key: Any, make: Callable[[], Any]) -> Any:
        """What ``make`` returns, made once per pass; anew where gradients or a compiler want to see it."""
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return make()
        if key not in self.kept:
            self.kept[key] = make()
        return self.kept[key]


@dataclass(frozen=True, eq=False)
class Conditions:
    """What is added to the prompts of each record."""

    by_layer: dict[int, Float[Tensor, "R _ H"]]
    """``id`` of a layer -> a vector per prompt and record, or one for all prompts of a record."""
    packing: TokenBlocks | None = None
    """Where rows hold several records: which token belongs to which."""


@dataclass(frozen=True, eq=False)
class ForwardContext:
    """All that accompanies a pass."""

    routing: Routing | None = None
    conditions: Conditions | None = None


_NOTHING = ForwardContext()


def current() -> ForwardContext:
    """What accompanies the running pass of this thread."""
    context: ForwardContext = getattr(_state, "context", _NOTHING)
    return context


@contextmanager
def within(**changes: Routing | Conditions | None) -> Iterator[None]:
    """Passes inside the block are accompanied by ``routing`` or ``conditions``; the rest stays as it is."""
    with _Restored(replace(current(), **changes)):  # type: ignore[arg-type]
        yield


def copies_per_record(rows: int, records: int, what: str) -> int:
    """How many rows k of a batch belong to each record.

    Args:
        rows: B of the batch.
        records: R.
        what: what there is one of per record, for the message.

    Raises:
        UserError: B is no multiple of R.
    """
    if rows % records:
        raise UserError(
            f"A batch of {rows} rows does not go with {records} {what}. Use one for each row; beams and "
            f"num_return_sequences then multiply the rows by themselves."
        )
    return rows // records


def recompute_context() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """A ``context_fn`` for ``torch.utils.checkpoint``: what to enter in the forward pass and on recomputing.

    Call it during the forward pass, as torch does. The second context may be entered several times.
    """
    return nullcontext(), _Restored(current())


class CarriesContext:
    """A checkpointing function, decorated so that what it runs again sees the context of its forward pass.

    It works with any such function, torch's own or one with contexts of its own.
    """

    def __init__(self, checkpoint: Callable[..., Any]) -> None:
        self.checkpoint = checkpoint

    @property
    def keywords(self) -> dict[str, Any]:
        """Options of the decorated ``functools.partial``, which others look at."""
        options: dict[str, Any] = getattr(self.checkpoint, "keywords", {})
        return options

    def __call__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Checkpoint ``function``."""
        _, restored = recompute_context()
        called = function if isinstance(function, partial) else partial(function)

        def run(*inner: Any, **options: Any) -> Any:
            """``function`` in the context of its forward pass."""
            with restored:
                return called.func(*inner, **options)

        # a partial of the same things: checkpointing functions look at them, such as at the layer
        return self.checkpoint(partial(run, *called.args, **called.keywords), *args, **kwargs)


def carry_into_checkpoints(model: nn.Module) -> None:
    """Make sure that layers of ``model`` that will be run again see the context of their forward pass."""
    for module in model.modules():
        function = getattr(module, "_gradient_checkpointing_func", None)
        if function is not None and not isinstance(function, CarriesContext):
            module._gradient_checkpointing_func = CarriesContext(function)  # type: ignore[assignment]


class _Restored:
    """Sets this thread's context to a given one inside; can be entered again and again."""

    def __init__(self, context: ForwardContext) -> None:
        self.context = context
        self._before: list[ForwardContext] = []

    def __enter__(self) -> None:
        self._before.append(current())
        _state.context = self.context

    def __exit__(self, *_: object) -> None:
        _state.context = self._before.pop()
