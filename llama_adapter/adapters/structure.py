"""A model's build, read off its module tree: layer stack, attention modules, linear maps and norms.

An adapted model reads like its base: wrappers stand for what they wrap, adapter parameters are invisible.
Nothing here knows model names.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers.pytorch_utils import Conv1D

from llama_adapter.attention import uses_attention_interface
from llama_adapter.errors import UserError

_LAYER_PATH = re.compile(r"^(?P<stack>.+)\.(?P<index>\d+)\.(?P<rest>.+)$")
_CROSS_ATTENTION = re.compile(r"cross|encoder_attn|encdec", re.IGNORECASE)
_ROUTER = re.compile(r"(^|_)(router|gate)$")
_BEFORE_LAYERS = re.compile(r"emb|pre")


@dataclass(frozen=True)
class Site:
    """A module of the layer stack that an adapter may attach to."""

    name: str
    """Path in the model."""
    layer: int | None
    """Position of its layer in the stack from 0; None for the norm after the stack."""
    block: str
    """``attention`` or ``mlp``: the half of the layer it belongs to; empty where there are no layers."""
    module: nn.Module
    """The module of the base model."""


def base_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Paths and modules of the base model, as if no adapter were attached."""
    wrapped: set[str] = set()
    for name, module in model.named_modules():
        if any(name.startswith(prefix) for prefix in wrapped):
            continue
        if isinstance(module, BaseTunerLayer):
            wrapped.add(name + ".")
            if not hasattr(module, "base_layer"):
                continue
            module = module.get_base_layer()
        yield name, module


def find_layer_stack(
    model: nn.Module, wanted: str | None = None, pattern: list[str] | str | None = None
) -> str | None:
    """Path of the list of layers to adapt; None for a model that has no layers.

    Args:
        model: the base model, adapted or not.
        wanted: the path asked for; None takes the only stack, or the one of a generating model's decoder.
        pattern: name of the stack, or end of its path, or several of them; None for any.

    Raises:
        UserError: there is no such stack, or there are several and no way to choose.
    """
    stacks = _layer_stacks(model)
    if pattern:
        ends = tuple(f".{end}" for end in ([pattern] if isinstance(pattern, str) else pattern))
        if not (named := [name for name in stacks if f".{name}".endswith(ends)]):
            raise UserError(f"layers_pattern={pattern!r} names no layer stack. Use one of {stacks}.")
        stacks = named
    if not stacks and wanted is None:
        return None
    if wanted is not None and wanted not in stacks:
        raise UserError(f"layer_stack={wanted!r} is no layer stack of this model. Use one of {stacks}.")
    candidates = [wanted] if wanted is not None else _in_decoder(model, stacks) or stacks
    if len(candidates) != 1:
        raise UserError(
            f"{type(model).__name__} has {len(candidates)} layer stacks: {candidates}. "
            f"Set layer_stack to the one to adapt."
        )
    return candidates[0]


def _layer_stacks(model: nn.Module) -> list[str]:
    """Paths of all lists of layers; a list inside a layer, such as experts, is none."""
    lists = [name for name, module in base_modules(model) if isinstance(module, nn.ModuleList)]
    return [name for name in lists if not _LAYER_PATH.match(f"{name}.x") and linear_sites(model, name)]


def _in_decoder(model: Any, stacks: list[str]) -> list[str]:
    """The stacks inside the decoder of a model that generates, such as the language model of a vision one."""
    if not getattr(model, "can_generate", lambda: False)():
        return []
    inside = {id(module) for module in model.get_decoder().modules()}
    return [name for name in stacks if id(model.get_submodule(name)) in inside]


def stack_sites(model: nn.Module, stack: str | None) -> Iterator[Site]:
    """Every module inside the layers of ``stack``, or inside the model, whose halves are then one."""
    for name, module in base_modules(model):
        if stack is None:
            yield Site(name, None, "", module)
            continue
        path = _LAYER_PATH.match(name)
        if path is not None and path["stack"] == stack:
            inside_attention = any("att" in part.lower() for part in path["rest"].split("."))
            yield Site(name, int(path["index"]), "attention" if inside_attention else "mlp", module)


def attention_sites(model: nn.Module, stack: str) -> list[Site]:
    """Self-attention modules that call transformers' attention interface, bottom layer first."""
    sites = [site for site in stack_sites(model, stack) if _is_self_attention(site)]
    return sorted(sites, key=lambda site: site.layer or 0)


def linear_sites(model: nn.Module, stack: str | None, with_routers: bool = False) -> list[Site]:
    """Linear maps inside the layers; routers of experts, which choose and compute nothing, only if asked."""
    return [
        site
        for site in stack_sites(model, stack)
        if linear_features(site.module) is not None
        and (with_routers or not _ROUTER.search(site.name.rpartition(".")[2]))
    ]


def norm_sites(model: nn.Module, stack: str | None) -> list[Site]:
    """Norms inside the layers and the one that follows the stack; without a stack all norms of the model.

    The latter sits beside the stack, or beside the encoder that holds it; norms there that come before the
    layers (Bloom's, CLIP's) are told by their names.
    """
    norms = [site for site in stack_sites(model, stack) if _is_norm(site.module)]
    if stack is None:
        return norms
    parent = stack.rpartition(".")[0]
    for place in dict.fromkeys((parent, parent.rpartition(".")[0])):
        after = [
            Site(name, None, "mlp", module)
            for name, module in base_modules(model)
            if name and name.rpartition(".")[0] == place and _is_norm(module)
        ]
        after = [site for site in after if not _BEFORE_LAYERS.search(site.name.rpartition(".")[2])]
        if after:
            return norms + after
    return norms


def has_expert_parameters(model: nn.Module, stack: str) -> bool:
    """Whether the layers keep experts as 3-D parameters, which no linear delta can wrap."""
    return any(p.dim() == 3 and "expert" in name for name, p in model.get_submodule(stack).named_parameters())


def layer_indices(
    model: nn.Module, stack: str | None, option: str, layers: int | list[int] | None
) -> list[int] | None:
    """Positions of the layers to adapt, in order; None for a model that has no layers.

    Args:
        model: the base model, adapted or not.
        stack: path of its layer stack.
        option: name of the option that ``layers`` comes from, for the message.
        layers: N for the top-most N, -K for all but the first K, a list of positions, or None for all.

    Raises:
        UserError: the stack has no such layers.
    """
    if stack is None:
        if layers is None:
            return None
        raise UserError(f"{option}={layers!r} came for {type(model).__name__}, which has no layers. Omit it.")
    depth = len(list(model.get_submodule(stack).children()))
    if layers is None:
        chosen = list(range(depth))
    elif isinstance(layers, int):
        first = depth - layers if layers > 0 else -layers
        chosen = list(range(first, depth)) if layers and first >= 0 else []
    else:
        chosen = sorted(set(layers))
    if not chosen or chosen[0] < 0 or chosen[-1] >= depth:
        raise UserError(
            f"{option}={layers!r} does not fit {type(model).__name__} with its {depth} layers. "
            f"Use a number up to {depth}, positions from 0 to {depth - 1}, or None for all layers."
        )
    return chosen


def linear_features(module: nn.Module) -> tuple[int, int] | None:
    """Input and output width of a linear map: plain, quantised, GPT-2's transposed; None for others."""
    if isinstance(module, BaseTunerLayer):  # another adapter's: its base map has the sizes
        module = module.get_base_layer()
    if isinstance(module, Conv1D):
        return module.weight.shape[0], module.weight.shape[1]
    widths: list[Any] = [getattr(module, name, None) for name in ("in_features", "out_features")]
    return None if None in widths else (int(widths[0]), int(widths[1]))


def placement(module: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Device and floating type that new parameters beside ``module`` should have.

    A quantised module has no floating weight: its adapter is float32. A module whose weights accelerate keeps
    elsewhere is on the meta device between calls: its adapter goes to the device where it runs.
    """
    parameters = list(module.parameters())
    device = parameters[0].device if parameters else torch.device("cpu")
    if device.type == "meta":
        hooks = [getattr(child, "_hf_hook", None) for child in module.modules()]
        devices: list[Any] = [getattr(hook, "execution_device", None) for hook in hooks]
        device = next((torch.device(found) for found in devices if found is not None), device)
    dtypes = [p.dtype for p in parameters if p.dtype.is_floating_point and p.dtype.itemsize > 1]
    return device, dtypes[0] if dtypes else torch.float32


def _is_self_attention(site: Site) -> bool:
    """Whether a module computes self-attention through transformers' interface."""
    named_cross = _CROSS_ATTENTION.search(site.name.rpartition(".")[2] + type(site.module).__name__)
    is_cross = named_cross or getattr(site.module, "is_cross_attention", False)
    return not is_cross and uses_attention_interface(site.module)


def _is_norm(module: nn.Module) -> bool:
    """Whether a module is a norm with a weight to tune."""
    return type(module).__name__.endswith("Norm") and isinstance(
        getattr(module, "weight", None), nn.Parameter
    )
