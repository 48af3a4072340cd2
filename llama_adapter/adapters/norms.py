"""Norm tuning: a trainable copy of a norm per adapter, as LLaMA-Adapter V2 trains the norms of its base.

The base norm stays as it is, so switching the adapter off gives the base model back.
"""

import copy
from dataclasses import dataclass, field
from typing import Any

from accelerate.hooks import ModelHook, remove_hook_from_module
from accelerate.utils import align_module_device
from jaxtyping import Float
from torch import Tensor, nn

from llama_adapter.adapters.layer import Plan, ZeroInitLayer, active_in, routing_in, wrap_once
from llama_adapter.adapters.row_norms import normalise_by_row
from llama_adapter.adapters.structure import norm_sites, placement
from llama_adapter.errors import UserError


@dataclass(kw_only=True)
class NormConfig:
    """Which norms are tuned."""

    targets: list[str] = field(default_factory=list)
    """Names of norms such as input_layernorm; empty takes all norms of the adapted layers."""
    final_norm: bool = True
    """Whether the norm after the last layer is tuned too."""


def parse_norms(value: NormConfig | dict[str, Any] | bool | None) -> NormConfig | None:
    """The config of tuned norms from what users and adapter_config.json write.

    Args:
        value: a config, a mapping of its options, true for the defaults, false or None for no tuned norms.

    Raises:
        UserError: unknown option.
    """
    if isinstance(value, NormConfig):
        return value
    options = value if isinstance(value, dict) else {}
    if unknown := options.keys() - NormConfig.__dataclass_fields__.keys():
        raise UserError(
            f"norms does not take {sorted(unknown)}. Use only {list(NormConfig.__dataclass_fields__)}."
        )
    return NormConfig(**options) if value or isinstance(value, dict) else None


class ZeroInitNorm(ZeroInitLayer):
    """Wraps a norm; the last active adapter that tunes it decides its weights."""

    adapter_layer_names = ("zero_init_norm",)

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.zero_init_norm = nn.ModuleDict()

    def add_copy(self, adapter_name: str) -> None:
        """Give an adapter a copy of the norm, equal to the base's until it is trained."""
        device, _ = placement(self.base_layer)
        self.zero_init_norm[adapter_name] = _copy_of(self.get_base_layer()).to(device)

    def folded(self, adapter_names: list[str]) -> dict[str, Tensor]:
        """The tuned parameters in the base's precision; of several adapters the last one's, as in forward."""
        base = self.get_base_layer()
        tuned = self.zero_init_norm[adapter_names[-1]]
        return {
            name: value.detach().to(base.get_parameter(name).dtype).clone()
            for name, value in tuned.named_parameters()
        }

    def forward(self, x: Float[Tensor, "..."], *args: Any, **kwargs: Any) -> Float[Tensor, "..."]:
        """Normalise ``x``, shape (..., H) in and out; further arguments belong to the base layer."""
        routing = routing_in(self)
        if routing is not None and any(name in self.zero_init_norm for name in routing.names):
            return normalise_by_row(routing, self.get_base_layer(), self.zero_init_norm, x, *args, **kwargs)
        for name in reversed(active_in(self) if routing is None else []):
            if name in self.merged_adapters:
                break
            if name in self.zero_init_norm:
                tuned = self.zero_init_norm[name]
                # LayerNorm's GPU kernels want one precision; PEFT keeps trained weights in float32.
                same = x.to(tuned.weight.dtype) if isinstance(tuned, nn.LayerNorm) else x
                return tuned(same, *args, **kwargs).to(x.dtype)
        return self.base_layer(x, *args, **kwargs)


def _copy_of(norm: nn.Module) -> nn.Module:
    """A copy of a norm, with the weights that an offloaded norm has only while it runs.

    accelerate's hook stays out of it: copied, it would take along all weights of the offloaded model.
    """
    hook = getattr(norm, "_hf_hook", None)
    with align_module_device(norm):
        copied = copy.deepcopy(norm, {} if hook is None else {id(hook): ModelHook()})
    return remove_hook_from_module(copied)


def plan_norms(
    model: nn.Module, stack: str | None, layers: list[int] | None, config: NormConfig | None
) -> Plan:
    """Where tuned norms go: path of each norm -> how to attach its copy.

    Args:
        model: the base model, adapted or not.
        stack: path of its layer stack; None for a model without layers.
        layers: positions of the layers to adapt; None for all.
        config: which norms; None tunes none.

    Raises:
        UserError: a target names no norm of these layers.
    """
    if config is None:
        return {}
    sites = norm_sites(model, stack)
    inside = sites if layers is None else [site for site in sites if site.layer in layers]
    names = {site.name.rpartition(".")[2] for site in inside}
    if unknown := set(config.targets) - names:
        raise UserError(
            f"norms.targets names {sorted(unknown)}, which these layers do not have. "
            f"Use some of {sorted(names)}."
        )
    tuned = [site for site in inside if not config.targets or site.name.rpartition(".")[2] in config.targets]
    if config.final_norm and stack is not None:
        tuned += [site for site in sites if site.layer is None]
    return {site.name: _attach_copy for site in tuned}


def _attach_copy(adapter_name: str, parent: nn.Module, name: str, target: nn.Module) -> None:
    """Wrap a norm if it is not wrapped yet and give the adapter its copy."""
    wrap_once(parent, name, target, ZeroInitNorm).add_copy(adapter_name)
