"""Prompts that differ from record to record: those of several adapters, gathered, and what is added to them.

Adapters may have different numbers of prompts: the shorter are filled up, and a mask leaves the filling out.
An adapter without prompts in this layer takes part with gates of zero.

Dimensions: R records, P prompt length, H hidden size, Q query heads.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from llama_adapter.adapters.layer import value_of
from llama_adapter.adapters.row_deltas import by_record, distinct, record_to_distinct
from llama_adapter.errors import UserError
from llama_adapter.forward_context import Routing


def gather_prompts(
    routing: Routing, prompts: nn.ModuleDict
) -> tuple[Float[Tensor, "R P H"], Float[Tensor, "R 1 1 P"] | None]:
    """Each record's prompts, and a mask: -inf where there is none, 0 elsewhere; None where all are real.

    Args:
        routing: the adapter of each record; one of them at least has prompts.
        prompts: the prompts, by adapter.
    """
    values = [value_of(name, prompts) if name in prompts else None for name in distinct(routing)]
    gathered = by_record(routing, values, 0.0)
    longest = gathered.shape[1]
    # Gates of zero hide the prompts of an adapter that has none; a mask that hides all would give nan.
    lengths = [longest if value is None else value.shape[0] for value in values]
    if min(lengths) == longest:
        return gathered, None
    index = record_to_distinct(routing, gathered.device)
    of_record = torch.tensor(lengths, device=gathered.device).index_select(0, index)
    missing = torch.arange(longest, device=gathered.device) >= of_record[:, None]
    # Added to scores, not boolean: kernels would turn a boolean one into this, at every token anew.
    mask = gathered.new_zeros(missing.shape).masked_fill(missing, -torch.inf)
    return gathered, mask[:, None, None]


def gather_gates(
    routing: Routing,
    gates: nn.ModuleDict,
    new_gates: nn.ModuleDict,
    activation: Mapping[str, str],
    heads: int,
) -> Float[Tensor, "R Q 1 1"]:
    """Each record's factor on its prompts' attention.

    Args:
        routing: the adapter of each record.
        gates: the gates, by adapter: one per query head or one for all.
        new_gates: the second factors, of adapters that have them.
        activation: what an adapter's gates go through.
        heads: Q.
    """
    names = distinct(routing)
    raw = by_record(routing, [_per_head(name, gates, heads) for name in names], 0.0)
    gate = raw
    if "tanh" in (kinds := [activation.get(name, "tanh") for name in names]):
        gate = torch.tanh(raw)
        if "identity" in kinds:
            bounded = torch.tensor([kind == "tanh" for kind in kinds], device=raw.device)
            index = record_to_distinct(routing, raw.device)
            gate = torch.where(bounded.index_select(0, index)[:, None, None, None], gate, raw)
    if any(name in new_gates for name in names):
        new = [value_of(name, new_gates) if name in new_gates else None for name in names]
        gate = gate * by_record(routing, new, 1.0)
    return gate


def fitting(
    added: Float[Tensor, "R A H"],
    prompts: Float[Tensor, "S P H"],
    lengths_differ: bool,
    layer_name: str,
) -> Float[Tensor, "R A H"]:
    """What is added to prompts, if it fits them: A is 1 or P.

    Raises:
        UserError: it has another number of prompts, or there are other records.
    """
    records, vectors = added.shape[:2]
    length = prompts.shape[1]
    if vectors != 1 and (vectors != length or lengths_differ):
        raise UserError(
            f"Conditions for {vectors} prompts meet {'up to ' * lengths_differ}{length} prompts in "
            f"{layer_name!r}. Use as many as the adapter's prompt_length, or one for all prompts."
        )
    if prompts.shape[0] not in (1, records):
        raise UserError(
            f"There are conditions of {records} records and adapter names of {prompts.shape[0]}. "
            f"Use one of each per row."
        )
    return added


def _per_head(name: str, gates: nn.ModuleDict, heads: int) -> Float[Tensor, "Q 1 1"] | None:
    """An adapter's gate for each query head, or None where it has none."""
    if name not in gates:
        return None
    gate = value_of(name, gates)
    return gate if gate.shape[0] == heads else gate.expand(heads, 1, 1)
