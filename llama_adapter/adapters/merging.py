"""Folds adapters into the weights of their base model, for good.

Bias, scale, LoRA and tuned norms become weights; prompts cannot. Where a map gets a bias that it did not
have, the model's config must say so, or the bias would be lost when the saved model is loaded: the switches
that configs have for it are tried on the meta device, and a model that has no place for it is refused.
"""

import copy
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel

from llama_adapter.adapters.layer import ZeroInitLayer
from llama_adapter.adapters.linear import ZeroInitLinear
from llama_adapter.adapters.norms import ZeroInitNorm
from llama_adapter.adapters.prompts import PromptLayer
from llama_adapter.errors import UserError

_SWITCHES = (("attention_bias",), ("mlp_bias",), ("attention_bias", "mlp_bias"))
"""Config options that give linear maps biases, in the order in which they are tried."""


def merge_into_base(model: nn.Module, adapter_names: list[str]) -> None:
    """Fold adapters in and take their wrappers off.

    Args:
        model: the base model with adapters attached.
        adapter_names: the adapters to fold in, first to last.

    Raises:
        NotImplementedError: one of them has prompts.
        UserError: the model has no place for a bias, or is quantised. Nothing was changed.
    """
    for module in model.modules():
        if isinstance(module, PromptLayer) and any(name in module.zero_init_prompt for name in adapter_names):
            ZeroInitLayer().merge(adapter_names=adapter_names)
    wrapped = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, (ZeroInitLinear, ZeroInitNorm))
    ]
    new_biases = [
        f"{name}.bias"
        for name, module in wrapped
        if isinstance(module, ZeroInitLinear) and module.adds_bias(adapter_names)
    ]
    places = _open_places(model, new_biases) if new_biases else []
    for name, module in wrapped:
        module.fold_into_base(adapter_names)
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, module.get_base_layer())
    for name in places:
        _fill_with_zeros(model, name)


def _open_places(model: nn.Module, new_biases: list[str]) -> list[str]:
    """Switch biases on in the model's config; the names of all biases that its architecture then has.

    Raises:
        UserError: the architecture has no place for some.
    """
    if not isinstance(model, PreTrainedModel):
        return []
    without: list[str] = new_biases
    for switches in _SWITCHES:
        config: Any = copy.deepcopy(model.config)
        if not all(hasattr(config, switch) for switch in switches):
            continue
        for switch in switches:
            setattr(config, switch, True)
        with torch.device("meta"):
            names = set(type(model)(config).state_dict())
        without = [name for name in new_biases if name not in names]
        if not without:
            for switch in switches:
                setattr(model.config, switch, True)
            return sorted(name for name in names if name.endswith(".bias"))
    raise UserError(
        f"{type(model).__name__} has no place for {len(without)} biases such as {without[0]!r}. "
        "Keep the adapter attached, or train without the bias delta on these maps."
    )


def _fill_with_zeros(model: nn.Module, name: str) -> None:
    """Give a linear map the bias that its architecture now has, if no delta gave it one."""
    module = cast(Any, model.get_submodule(name.rpartition(".")[0]))
    if module.bias is None:
        zeros = torch.zeros(module.weight.shape[0], dtype=module.weight.dtype, device=module.weight.device)
        module.bias = nn.Parameter(zeros, requires_grad=False)
