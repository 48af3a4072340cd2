"""Norms whose weights differ from row to row: each record's rows get those of their own adapter.

A norm is computed once for all rows. Models bring their own classes of norms, which multiply what they
normalised by their weight, or by one plus it: given a weight with a leading row dimension, the same code does
all rows at once. torch's own two norms hand their weight to a kernel that takes one for all rows, so weight
and bias are applied after it.

Dimensions: R records, H width of what is normalised.
"""

from typing import Any, cast

from accelerate.utils import align_module_device
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import layer_norm, rms_norm

from llama_adapter.adapters.row_deltas import WithValues, by_record, distinct
from llama_adapter.errors import UserError
from llama_adapter.forward_context import Routing, copies_per_record


def normalise_by_row(
    routing: Routing,
    base: nn.Module,
    tuned: nn.ModuleDict,
    x: Float[Tensor, "..."],
    *args: Any,
    **kwargs: Any,
) -> Float[Tensor, "..."]:
    """Normalise (B, ..., H), each record's rows by its adapter's norm.

    Args:
        routing: the adapter of each record.
        base: the base model's norm, which adapters without a tuned one use.
        tuned: the tuned norms, by adapter.
        x: what enters the norm.
        *args: further arguments, of which there may be none.
        **kwargs: likewise.

    Raises:
        UserError: the norm's class cannot take a weight per row, or it takes more than ``x``.
    """
    if args or kwargs:
        raise _cannot_differ(base)
    records = len(routing.names)
    copies_per_record(x.shape[0], records, "adapter names")
    weights = routing.keep(("norm", id(base)), lambda: _weights(routing, base, tuned))
    rows = x.reshape(records, -1, x.shape[-1])
    return _normalise(base, weights, rows).to(x.dtype).reshape(x.shape)


def _weights(routing: Routing, base: nn.Module, tuned: nn.ModuleDict) -> dict[str, Float[Tensor, "R 1 H"]]:
    """Weight, and bias where there is one, of each record's norm."""
    chosen = [tuned[name] if name in tuned else base for name in distinct(routing)]  # noqa: SIM401 - no dict
    precision = next(tuned.parameters()).dtype
    gathered = {}
    for name, _ in next(iter(tuned.values())).named_parameters(recurse=False):
        values = []
        for norm in chosen:
            with align_module_device(norm):  # an offloaded norm has its weight only now and then
                values.append(norm.get_parameter(name).to(precision))
        gathered[name] = by_record(routing, values, 0.0).unsqueeze(1)
    return gathered


def _normalise(norm: nn.Module, weights: dict[str, Tensor], x: Float[Tensor, "R T H"]) -> Tensor:
    """Normalise ``x`` with the given weights in place of the norm's own, (R, T, H) in and out."""
    if isinstance(norm, (nn.LayerNorm, nn.RMSNorm)):
        if type(norm).forward not in (nn.LayerNorm.forward, nn.RMSNorm.forward):
            raise _cannot_differ(norm)
        shape = norm.normalized_shape
        same = x.to(weights["weight"].dtype)
        if isinstance(norm, nn.LayerNorm):
            scaled = layer_norm(same, shape, eps=norm.eps) * weights["weight"]
            return scaled + weights["bias"] if "bias" in weights else scaled
        return rms_norm(same, shape, eps=norm.eps) * weights["weight"]
    own: Any = type(norm).forward
    return cast("Tensor", own(WithValues(norm, weights), x))


def _cannot_differ(norm: nn.Module) -> UserError:
    """The error for a norm that must be the same for all rows."""
    return UserError(
        f"The norm {type(norm).__name__} cannot have weights per row. Use one adapter per batch, or adapters "
        f"without norms."
    )
