"""Gated prompts: learned rows that the queries of a layer attend to in a softmax of their own.

The heart of LLaMA-Adapter V1 (arXiv 2303.16199, section 3.2). Beside the layer's attention over tokens, its
queries attend to P learned prompts; the result is multiplied by a gate per head and added. Gates start at
zero, so training starts from exactly the pretrained model.

``tanh(g) * softmax(q k) v`` is computed as ``softmax(q k) (tanh(g) v)``: the gate then touches P rows instead
of all positions. Under grouped-query attention values are repeated per query head first, since gates belong
to query heads.

Keys and values are computed anew in every forward, since a copy kept across steps would cut the prompts'
gradient; only during generation they are computed once, and kept with that generation's cache.

Rows of a batch see the same prompts unless the forward context (``forward_context.py``) says otherwise: other
adapters' (``row_prompts.py``), with something added to them, or of packed rows each token its own record's.

Dimensions: B batch, T query positions, P prompt length, H hidden size, Q query heads, G key/value heads, D
head size, R records; S 1 where all records see the same, R otherwise.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from llama_adapter.adapters.families import refuse_prompts, warn_if_untested
from llama_adapter.adapters.layer import (
    Attach,
    Plan,
    Value,
    ZeroInitLayer,
    active_in,
    condition_in,
    routing_in,
    value_of,
)
from llama_adapter.adapters.projections import AttentionShape, attention_shape, project_prompts
from llama_adapter.adapters.prompt_attention import attend_to_prompts
from llama_adapter.adapters.row_deltas import distinct, record_to_distinct
from llama_adapter.adapters.row_prompts import fitting, gather_gates, gather_prompts
from llama_adapter.adapters.structure import Site, attention_sites, placement
from llama_adapter.attention import PROMPT_BRANCH, Memory, carry_prompts
from llama_adapter.errors import UserError
from llama_adapter.forward_context import ForwardContext, Routing, copies_per_record, current, within
from llama_adapter.token_blocks import TokenBlocks

Found = tuple[Float[Tensor, "_ Q P D"], Float[Tensor, "_ Q P D"], Float[Tensor, "_ 1 1 P"] | None]
"""Keys, values with gates folded in, and a mask to add to the scores where rows differ in their number."""


@dataclass(kw_only=True, frozen=True)
class PromptConfig:
    """The prompts of one adapter; users set these on ``ZeroInitConfig``, which documents them."""

    length: int
    gate: Literal["head", "scalar"]
    gate_activation: Literal["tanh", "identity"]
    new_gate: bool
    prompt_init_std: float
    gate_init_std: float


@dataclass(frozen=True, eq=False, slots=True)
class _Kept:
    """What the prompts of a layer became, and what decided it."""

    found: list[Any]
    """A ``Found`` per adapter, each with a prompt length of its own."""
    packing: TokenBlocks | None
    added: Float[Tensor, "R _ H"] | None
    context: ForwardContext
    active: str | list[str]
    disabled: bool
    rows: int
    dtype: torch.dtype
    device: torch.device

    def serves(self, layer: "PromptLayer", query: Float[Tensor, "B Q T D"]) -> bool:
        """Whether it holds for another pass; short, because every layer asks for every token."""
        return (
            self.context is current()
            and self.active == layer._active_adapter
            and self.disabled == layer._disable_adapters
            and self.rows == len(query)
            and self.dtype == query.dtype
            and self.device == query.device
        )


class PromptLayer(ZeroInitLayer):
    """The prompts and gates of any number of adapters beside one attention module."""

    adapter_layer_names = ("zero_init_prompt", "zero_init_gate", "zero_init_new_gate")

    def __init__(self, layer_name: str, layer_index: int, shape: AttentionShape) -> None:
        super().__init__()
        self.layer_name = layer_name
        self.layer_index = layer_index
        self.shape = shape
        self.zero_init_prompt = nn.ModuleDict()
        self.zero_init_gate = nn.ModuleDict()
        self.zero_init_new_gate = nn.ModuleDict()
        self._activation: dict[str, str] = {}
        self._device = torch.device("cpu")

    @property
    def weight(self) -> NoReturn:
        """There is none; PEFT's tuner layers would look for it in the layer they wrap, without end."""
        raise AttributeError(
            f"The prompts of {self.layer_name!r} wrap no layer, so there is no weight. Read zero_init_prompt."
        )

    def add_prompts(
        self, adapter_name: str, config: PromptConfig, device: torch.device, dtype: torch.dtype
    ) -> None:
        """Give an adapter its prompts and gates here.

        Shapes: prompts (P, H); gates (Q, 1, 1), or (1, 1, 1) for one scalar per layer; new gate (1, 1, 1).
        """
        heads = self.shape.num_heads if config.gate == "head" else 1
        prompt = torch.randn(config.length, self.shape.hidden_size) * config.prompt_init_std
        gate = torch.randn(heads, 1, 1) * config.gate_init_std
        self.zero_init_prompt[adapter_name] = Value(prompt.to(device, dtype))
        self.zero_init_gate[adapter_name] = Value(gate.to(device, dtype))
        if config.new_gate:
            self.zero_init_new_gate[adapter_name] = Value(torch.ones(1, 1, 1, device=device, dtype=dtype))
        self._activation[adapter_name] = config.gate_activation
        self._device = device

    def _move_adapter_to_device_of_base_layer(
        self, adapter_name: str, device: torch.device | None = None
    ) -> None:
        """Move prompts and gates beside their attention module: PEFT calls it after a load by way of meta."""
        for values in (self.zero_init_prompt, self.zero_init_gate, self.zero_init_new_gate):
            if adapter_name in values and not value_of(adapter_name, values).is_meta:
                values[adapter_name].to(device or self._device)

    def drop_adapter(self, adapter_name: str) -> None:
        """Take one adapter's prompts and gates away."""
        super().drop_adapter(adapter_name)
        self._activation.pop(adapter_name, None)

    def delete_adapter(self, adapter_name: str) -> None:
        """Delete one adapter's prompts and gates."""
        super().delete_adapter(adapter_name)
        self._activation.pop(adapter_name, None)

    def check_foldable(self, adapter_names: list[str]) -> None:
        """Prompts never are.

        Raises:
            NotImplementedError: says what to do instead.
        """
        raise NotImplementedError(
            f"Adapters {adapter_names} have gated prompts and do not merge: prompts have a softmax of their "
            f"own, which no weight expresses. Keep them attached or use unload()."
        )

    def has_active_prompts(self) -> bool:
        """Whether an adapter that acts in this pass has prompts here."""
        return any(name in self.zero_init_prompt for name in self._acting())

    def effective_gate(self, adapter_name: str) -> Float[Tensor, "Q 1 1"]:
        """Factor on the prompts' attention: the activated gate, times the new gate where there is one."""
        gate = value_of(adapter_name, self.zero_init_gate)
        if self._activation[adapter_name] == "tanh":
            gate = torch.tanh(gate)
        if adapter_name in self.zero_init_new_gate:
            gate = gate * value_of(adapter_name, self.zero_init_new_gate)
        return gate

    def attend(
        self,
        attention: nn.Module,
        query: Float[Tensor, "B Q T D"],
        scaling: float | None,
        softcap: float | None,
        memory: Memory | None = None,
    ) -> Float[Tensor, "B T Q D"] | None:
        """Sum over active adapters of the gated attention of ``query`` to their prompts; None without any.

        Args:
            attention: the module this layer sits beside.
            query: as the model's own attention gets it, rotated and normalised.
            scaling: factor on the scores; None for 1 / sqrt(D).
            softcap: bound c of the scores, ``c * tanh(score / c)``; None for none.
            memory: of one generation, for keys and values; None computes them anew.
        """
        # Every token of a generation comes this way; what was found at its start serves to its end.
        kept = None if memory is None else memory.get(self.layer_name)
        if kept is None or not kept.serves(self, query):
            kept = self._keep(attention, query, {} if memory is None else memory)
        packing = kept.packing
        found: list[Found] = kept.found
        seekers = query if packing is None else packing.split(query)
        attended = [attend_to_prompts(seekers, *parts, scaling, softcap) for parts in found]
        if not attended:
            return None
        together = torch.stack(attended).sum(0) if len(attended) > 1 else attended[0]
        return together.transpose(1, 2) if packing is None else packing.join(together)

    def _keep(self, attention: nn.Module, query: Float[Tensor, "B Q T D"], memory: Memory) -> "_Kept":
        """What prompts become in this pass; in memory, adapters that take turns have a place each."""
        condition = condition_in(self)
        packing, added = (None, None) if condition is None else (condition[0].packing, condition[1])
        routed = routing_in(self) is not None
        place = (self.layer_name, routed, *self._acting(), query.dtype, query.device, len(query))
        earlier = memory.get(place)
        if earlier is not None and earlier.packing is packing and earlier.added is added:
            found = earlier.found
        else:
            found = self._found(attention, query, packing, added)
        active = self._active_adapter
        memory[place] = memory[self.layer_name] = kept = _Kept(
            found=found,
            packing=packing,
            added=added,
            context=current(),
            active=active if isinstance(active, str) else list(active),
            disabled=self._disable_adapters,
            rows=len(query),
            dtype=query.dtype,
            device=query.device,
        )
        return kept

    def _acting(self) -> Sequence[str]:
        """Names of the adapters that act in this pass, in some rows or in all."""
        routing = routing_in(self)
        return active_in(self) if routing is None else routing.names

    def _found(
        self,
        attention: nn.Module,
        query: Float[Tensor, "B Q T D"],
        packing: TokenBlocks | None,
        added: Float[Tensor, "R _ H"] | None,
    ) -> list[Found]:
        """What the queries of each row find, in the query's type; one item, and one softmax, per adapter.

        Where rows have adapters of their own they are one item together.
        """
        if not self.has_active_prompts():
            return []
        if routing_in(self) is None:
            names = [name for name in active_in(self) if name in self.zero_init_prompt]
            found = [self._project(name, attention, query, added) for name in names]
        elif packing is not None:
            raise UserError(
                f"Both adapter_names and record_index came to {self.layer_name!r}. Use adapter_names with "
                f"one record per row."
            )
        else:
            found = [self._project_by_row(attention, query, added)]
        rows = query.shape[0]
        return [cast("Found", tuple(_spread(part, rows, packing) for part in parts)) for parts in found]

    def _project(
        self,
        name: str,
        attention: nn.Module,
        query: Float[Tensor, "B Q T D"],
        added: Float[Tensor, "R _ H"] | None,
    ) -> Found:
        """What one adapter's prompts become; each record's own where something is added to them."""
        prompts = value_of(name, self.zero_init_prompt).unsqueeze(0)
        if added is not None:
            prompts = prompts + fitting(added, prompts, False, self.layer_name)
        keys, values = self._per_query_head(attention, prompts.to(query.dtype), query.shape[1])
        values = values * self.effective_gate(name).to(values.dtype)
        return keys.to(query.dtype), values.to(query.dtype), None

    def _project_by_row(
        self, attention: nn.Module, query: Float[Tensor, "B Q T D"], added: Float[Tensor, "R _ H"] | None
    ) -> Found:
        """What each record's prompts become: projected once for each distinct adapter where nothing is added.

        The projections have deltas and norms of their own, which see the same records as the prompts.
        """
        routing = cast("Routing", routing_in(self))
        once = routing if added is not None else Routing(distinct(routing), routing.layers)
        prompts, mask = gather_prompts(once, self.zero_init_prompt)
        if added is not None:
            prompts = prompts + fitting(added, prompts, mask is not None, self.layer_name)
        with within(routing=once):
            keys, values = self._per_query_head(attention, prompts.to(query.dtype), query.shape[1])
        gates = (self.zero_init_gate, self.zero_init_new_gate, self._activation)
        values = values * gather_gates(once, *gates, query.shape[1]).to(values.dtype)
        mask = None if mask is None else mask.to(query.dtype)
        found = keys.to(query.dtype), values.to(query.dtype), mask
        if once is routing:
            return found
        index = record_to_distinct(routing, query.device)
        return cast("Found", tuple(None if part is None else part.index_select(0, index) for part in found))

    def _per_query_head(
        self, attention: nn.Module, prompts: Float[Tensor, "S P H"], heads: int
    ) -> tuple[Float[Tensor, "S Q P D"], Float[Tensor, "S Q P D"]]:
        """Keys and values of prompts, repeated for the query heads of a group."""
        keys, values = project_prompts(attention, prompts, self.shape.head_size)
        per_group = heads // keys.shape[1]
        return keys.repeat_interleave(per_group, dim=1), values.repeat_interleave(per_group, dim=1)


def _spread(part: Tensor | None, rows: int, packing: TokenBlocks | None) -> Tensor | None:
    """(R, ...) of each record -> (B, ...) of each row, or of each block of tokens; one row shares its memory.

    Raises:
        UserError: the rows do not go with the records.
    """
    if part is None:
        return None
    if packing is not None:
        return part.index_select(0, packing.record_of_block)
    if part.shape[0] == 1:
        return part.expand(rows, *part.shape[1:])
    copies = copies_per_record(rows, part.shape[0], "conditions or adapter names")
    return part if copies == 1 else part.repeat_interleave(copies, dim=0)


def plan_prompts(
    model: nn.Module, stack: str | None, layers: list[int] | None, config: PromptConfig | None
) -> Plan:
    """Where prompts go: path of each attention module -> how to attach its prompts.

    Args:
        model: the base model, adapted or not.
        stack: path of its layer stack; None for a model without layers.
        layers: positions of the layers to adapt.
        config: the prompts; None attaches none.

    Raises:
        UserError: the model's attention cannot carry prompts.
    """
    if config is None:
        return {}
    sites = [] if stack is None else attention_sites(model, stack)
    if not sites:
        raise refuse_prompts(model)
    warn_if_untested(model)
    return {
        site.name: _attach_prompts(site, attention_shape(site.module), config)
        for site in sites
        if site.layer in (layers or [])
    }


def _attach_prompts(site: Site, shape: AttentionShape, config: PromptConfig) -> Attach:
    """How one attention module gets its prompts."""

    def attach(adapter_name: str, parent: nn.Module, name: str, attention: nn.Module) -> None:
        branch = attention._modules.get(PROMPT_BRANCH)
        if not isinstance(branch, PromptLayer):
            branch = PromptLayer(site.name, site.layer or 0, shape)
            carry_prompts(attention, branch)
        branch.add_prompts(adapter_name, config, *placement(attention))

    return attach
