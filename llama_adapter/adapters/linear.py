"""A linear map with the deltas of any number of adapters: the tuner layer of V2's bias, scale and LoRA.

It calls the map it wraps and never reads its weight, so plain, quantised and offloaded maps work alike.

Dimensions: N input width, M output width; ``...`` any leading dimensions.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Float
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from llama_adapter.adapters.deltas import DELTAS, Delta, DeltaConfig
from llama_adapter.adapters.families import EXPERTS_3D, model_type_of
from llama_adapter.adapters.layer import Attach, Plan, ZeroInitLayer, active_in, routing_in, wrap_once
from llama_adapter.adapters.row_deltas import AnyRowDelta, deltas_of_rows
from llama_adapter.adapters.structure import has_expert_parameters, linear_features, placement
from llama_adapter.adapters.targets import targeted
from llama_adapter.errors import UserError
from llama_adapter.forward_context import Routing, copies_per_record

if TYPE_CHECKING:
    from llama_adapter.adapters.config import ZeroInitConfig


class ZeroInitLinear(ZeroInitLayer):
    """Wraps a linear map; active adapters' deltas apply in the order in which their config lists them."""

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.in_features, self.out_features = cast("tuple[int, int]", linear_features(base_layer))
        self.adapter_layer_names: tuple[
            str, ...
        ] = ()  # one ModuleDict per kind of delta, made when first needed
        self._order: dict[str, list[str]] = {}

    def add_delta(self, adapter_name: str, config: DeltaConfig) -> None:
        """Give an adapter one more delta of this map.

        Raises:
            UserError: the adapter has one of this kind here already.
        """
        order = self._order.setdefault(adapter_name, [])
        attribute = f"zero_init_{config.kind}"
        if attribute in order:
            raise UserError(f"Two {config.kind!r} deltas target one linear map. Use each kind once per map.")
        if attribute not in self.adapter_layer_names:
            self.add_module(attribute, nn.ModuleDict())
            self.adapter_layer_names = (*self.adapter_layer_names, attribute)
        self._deltas_of(attribute)[adapter_name] = self._new_delta(config)
        order.append(attribute)

    def _new_delta(self, config: DeltaConfig) -> Delta:
        """A delta of this map, where it runs.

        Raises:
            UserError: a delta with modules inside, whose parameters PEFT would leave out of its files.
        """
        device, dtype = placement(self.base_layer)
        delta = DELTAS[config.kind][1](config, self.in_features, self.out_features).to(dtype)
        if inside := [name for name, _ in delta.named_children()]:
            raise UserError(
                f"The {type(delta).__name__} delta has modules inside, {inside[0]!r}, which have no names "
                f"in PEFT's files. Keep their values as parameters of the delta itself."
            )
        on_meta = any(p.is_meta for p in delta.parameters())  # PEFT's low_cpu_mem_usage: values come later
        return delta if on_meta else delta.to(device)

    def drop_adapter(self, adapter_name: str) -> None:
        """Take one adapter's deltas away."""
        super().drop_adapter(adapter_name)
        self._order.pop(adapter_name, None)

    def delete_adapter(self, adapter_name: str) -> None:
        """Delete one adapter's deltas."""
        super().delete_adapter(adapter_name)
        self._order.pop(adapter_name, None)

    def forward(self, x: Float[Tensor, "... N"], *args: Any, **kwargs: Any) -> Float[Tensor, "... M"]:
        """The adapted map; further arguments belong to the base layer."""
        routing = routing_in(self)
        if routing is not None:
            return self._apply_by_row(routing, self._deltas_of_rows(routing), x, *args, **kwargs)
        return self._apply_deltas(self._active_deltas(), x, *args, **kwargs)

    def forward_prompts(self, prompts: Float[Tensor, "... N"]) -> Float[Tensor, "... M"]:
        """The map as prompts see it on their way to keys and values: bias and scale, no LoRA."""
        routing = routing_in(self)
        if routing is not None:
            rows = [delta for delta in self._deltas_of_rows(routing) if delta.applies_to_prompts]
            return self._apply_by_row(routing, rows, prompts)
        return self._apply_deltas(
            [delta for delta in self._active_deltas() if delta.applies_to_prompts], prompts
        )

    def adds_bias(self, adapter_names: list[str]) -> bool:
        """Whether folding these adapters in would give the map the bias that it lacks."""
        lacking = getattr(self.get_base_layer(), "bias", None) is None
        return lacking and any(delta.adds_bias for delta in self._deltas(adapter_names))

    def check_foldable(self, adapter_names: list[str]) -> None:
        """Refuse a map that is quantised, or that holds another adapter, whose effect deltas would scale."""
        if isinstance(self.base_layer, BaseTunerLayer):
            raise UserError(
                f"The map to merge {adapter_names} into holds a {type(self.base_layer).__name__} of another "
                f"adapter. Merge that one into the base before these are attached."
            )
        if type(base := self.get_base_layer()) not in (nn.Linear, Conv1D):
            raise UserError(
                f"A {type(base).__name__} cannot take deltas into its weight. "
                "Load the base unquantised to merge."
            )

    def folded(self, adapter_names: list[str]) -> dict[str, Tensor]:
        """Weight, and bias where there is one, that do what the adapters' deltas do as well."""
        self.check_foldable(adapter_names)
        base: Any = self.get_base_layer()
        transposed = isinstance(base, Conv1D)
        weight = (base.weight.T if transposed else base.weight).detach().double()
        bias = None if base.bias is None else base.bias.detach().double()
        deltas = self._deltas(adapter_names)
        with torch.no_grad():
            for delta in deltas:
                weight = delta.fold_input(weight)
            for delta in deltas:
                weight, bias = delta.fold_output(weight, bias)
        found = {"weight": (weight.T if transposed else weight).to(base.weight.dtype).contiguous()}
        return found if bias is None else {**found, "bias": bias.to(base.weight.dtype)}

    def _apply_deltas(
        self, deltas: Sequence[Delta | AnyRowDelta], x: Tensor, *args: Any, **kwargs: Any
    ) -> Tensor:
        """(..., N) -> (..., M) through the given deltas and the base layer."""
        scaled = x
        for delta in deltas:
            scaled = delta.on_input(scaled)
        y = self.base_layer(scaled, *args, **kwargs)
        for delta in deltas:
            y = delta.on_output(y, x)
        return y

    def _apply_by_row(
        self, routing: Routing, deltas: list[AnyRowDelta], x: Tensor, *args: Any, **kwargs: Any
    ) -> Tensor:
        """(B, ..., N) -> (B, ..., M) through deltas with a leading dimension R; all of a record's at once."""
        if not deltas:
            return self.base_layer(x, *args, **kwargs)
        records = len(routing.names)
        copies_per_record(x.shape[0], records, "adapter names")
        y = self._apply_deltas(deltas, x.reshape(records, -1, x.shape[-1]), *args, **kwargs)
        return y.reshape(*x.shape[:-1], y.shape[-1])

    def _deltas_of_rows(self, routing: Routing) -> list[AnyRowDelta]:
        """Deltas of each record's adapter, gathered."""
        deltas = {kind: self._deltas_of(kind) for kind in self.adapter_layer_names}
        found: list[AnyRowDelta] = routing.keep(
            id(self), lambda: deltas_of_rows(routing, self._order, deltas)
        )
        return found

    def _active_deltas(self) -> list[Delta]:
        """Deltas of the active adapters, in order; merged ones are in the weight."""
        return self._deltas([name for name in active_in(self) if name not in self.merged_adapters])

    def _deltas(self, adapter_names: list[str]) -> list[Delta]:
        """Deltas of these adapters, in order."""
        return [
            cast("Delta", self._deltas_of(kind)[name])
            for name in adapter_names
            for kind in self._order.get(name, [])
        ]

    def _deltas_of(self, attribute: str) -> nn.ModuleDict:
        """The deltas of one kind, by adapter."""
        return cast("nn.ModuleDict", self._modules[attribute])


def plan_deltas(
    model: nn.Module, stack: str | None, layers: list[int] | None, config: "ZeroInitConfig"
) -> Plan:
    """Where the deltas go: path of each linear map -> how to attach what it gets.

    Args:
        model: the base model, adapted or not.
        stack: path of its layer stack; None for a model without layers, or for all that it has.
        layers: positions of the layers to adapt; None for all.
        config: of the adapter.

    Raises:
        UserError: a target names no linear map of these layers.
    """
    wanted: dict[str, list[DeltaConfig]] = {}
    for delta in config.linear_deltas:
        if stack and "mlp" in (delta.targets or ()) and has_expert_parameters(model, stack):
            raise UserError(
                f"The {delta.kind!r} delta cannot target the mlp of {model_type_of(model)!r}: {EXPERTS_3D}. "
                f"Set targets=['attention']."
            )
        for site in targeted(model, stack, layers, delta, config):
            wanted.setdefault(site.name, []).append(delta)
    return {name: _attach_deltas(configs) for name, configs in wanted.items()}


def _attach_deltas(configs: list[DeltaConfig]) -> Attach:
    """How one linear map gets its deltas."""

    def attach(adapter_name: str, parent: nn.Module, name: str, target: nn.Module) -> None:
        layer = wrap_once(parent, name, target, ZeroInitLinear)
        for config in configs:
            layer.add_delta(adapter_name, config)

    return attach
