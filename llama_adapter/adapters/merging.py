"""Folds adapters into the weights of their base model, for good or until they are taken out again.

Bias, scale, LoRA and tuned norms become weights; prompts cannot. A map that gets a bias which it did not have
computes with it at once. A saved model is another matter: it is built from its config, and a bias without a
place there would be lost on loading. So the config's switches for biases are tried on the meta device, and
where none helps the merged model works, but refuses to be saved.
"""

import copy
import functools
from collections.abc import Iterator
from itertools import combinations
from typing import Any, NoReturn, cast

import torch
from peft.tuners.tuners_utils import onload_layer
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from llama_adapter.adapters.layer import ZeroInitLayer
from llama_adapter.adapters.linear import ZeroInitLinear
from llama_adapter.errors import UserError

_MOST_SWITCHES = 4
"""Of a config; more are none that give linear maps their biases."""


def check_mergeable(model: nn.Module, adapter_names: list[str], safe_merge: bool) -> None:
    """Refuse adapters that cannot be merged, while nothing is changed yet.

    Args:
        model: the base model with adapters attached.
        adapter_names: the adapters to fold in, first to last.
        safe_merge: whether weights that would not be finite are refused too.

    Raises:
        NotImplementedError: one of them has prompts.
        UserError: a map is quantised or holds another adapter, or a weight would not be finite.
    """
    for module in model.modules():
        if isinstance(module, ZeroInitLayer):
            with onload_layer(module):
                module.check_merge(safe_merge, adapter_names)


def biases_to_come(model: nn.Module, adapter_names: list[str]) -> list[str]:
    """Names of biases that the base will have after adapters were folded in, and has not by itself."""
    return [
        f"{name}.bias"
        for name, module in model.named_modules()
        if isinstance(module, ZeroInitLinear) and module.adds_bias([*adapter_names, *module.merged_adapters])
    ]


def keep_biases(model: nn.Module, new_biases: list[str]) -> None:
    """Have a plain model keep biases that it got, when it is saved: switches in its config, or a refusal.

    Args:
        model: the merged model, without adapters.
        new_biases: their names.
    """
    if not new_biases or not isinstance(model, PreTrainedModel):
        return
    known = set(model.state_dict()) - set(new_biases)
    for flags in _choices(_bias_switches(model.config.get_text_config())):
        names = _names_by_config(model, flags)
        if known | set(new_biases) <= names and all(name.endswith(".bias") for name in names - known):
            _switch(model.config, flags)
            for name in sorted(names - known):
                _fill_with_zeros(model, name)
            return
    refusal = functools.partial(_refuse_to_save, type(model).__name__, new_biases)
    model.save_pretrained = refusal  # type: ignore[method-assign]


def _choices(flags: list[str]) -> Iterator[tuple[str, ...]]:
    """All choices of one flag and more, the shortest first."""
    for number in range(1, len(flags) + 1):
        yield from combinations(flags, number)


def _switch(config: PreTrainedConfig, flags: tuple[str, ...]) -> None:
    """Turn options of a model's language part over."""
    text = config.get_text_config()
    for flag in flags:
        setattr(text, flag, not getattr(text, flag))


def _bias_switches(config: PreTrainedConfig) -> list[str]:
    """Options of a config that may give linear maps biases."""
    flags = [name for name, value in config.to_dict().items() if isinstance(value, bool) and "bias" in name]
    return flags if len(flags) <= _MOST_SWITCHES else []


def _names_by_config(model: PreTrainedModel, flags: tuple[str, ...]) -> set[str]:
    """Names of the weights of a fresh model of the same class, with options turned over."""
    config = copy.deepcopy(model.config)
    _switch(config, flags)
    with torch.device("meta"):
        return set(type(model)(config).state_dict())


def _refuse_to_save(model_class: str, biases: list[str], *args: Any, **kwargs: Any) -> NoReturn:
    """In place of ``save_pretrained``.

    Raises:
        UserError: always.
    """
    raise UserError(
        f"{model_class} cannot store {len(biases)} merged biases such as {biases[0]!r}: they would be "
        f"lost on loading. Save the adapter instead, or train without the bias delta on these maps."
    )


def _fill_with_zeros(model: nn.Module, name: str) -> None:
    """Give a linear map the bias that its architecture now has, if no delta gave it one."""
    module = cast("Any", model.get_submodule(name.rpartition(".")[0]))
    if module.bias is None:
        zeros = torch.zeros(module.weight.shape[0], dtype=module.weight.dtype, device=module.weight.device)
        module.bias = nn.Parameter(zeros, requires_grad=False)
