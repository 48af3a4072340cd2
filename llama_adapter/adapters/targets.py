"""Which linear maps a delta goes to: halves of layers, names of maps, or PEFT's own options for modules.

PEFT's options are read by PEFT's own function, so that they mean here what they mean in a ``LoraConfig``.
"""

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from peft.tuners.tuners_utils import check_target_module_exists
from torch import nn

from llama_adapter.adapters.deltas import BLOCKS, DeltaConfig
from llama_adapter.adapters.structure import Site, linear_sites
from llama_adapter.errors import UserError

if TYPE_CHECKING:
    from llama_adapter.adapters.config import ZeroInitConfig


def targeted(
    model: nn.Module,
    stack: str | None,
    layers: list[int] | None,
    delta: DeltaConfig,
    config: "ZeroInitConfig",
) -> list[Site]:
    """The linear maps that a delta goes to.

    Args:
        model: the base model, adapted or not.
        stack: path of its layer stack; None for all of the model.
        layers: positions of the layers to adapt; None for all.
        delta: its ``targets`` choose; where it has none, the adapter's ``target_modules``.
        config: of the adapter.

    Raises:
        UserError: what chooses names no linear map.
    """
    sites = linear_sites(model, stack)
    if delta.targets is not None:
        inside = [site for site in sites if layers is None or site.layer in layers]
        return _by_name(inside, delta, delta.targets, blocks=BLOCKS if stack else ())
    sites = _sites_of_peft(model, stack, layers, config)
    chosen = [site for site in sites if _by_peft(site.name, config.target_modules)]
    if isinstance(config.target_modules, str):
        unknown = [] if chosen else [config.target_modules]
    else:
        unknown = [name for name in config.target_modules or [] if not _some_is(sites, name)]
    if unknown:
        raise UserError(
            f"target_modules names {sorted(unknown)}, which are no linear maps of {type(model).__name__}. "
            f"Use some of {sorted({_last(site) for site in sites})}, a pattern of paths, or 'all-linear'."
        )
    return [site for site in chosen if _last(site) not in delta.exclude]


def _sites_of_peft(
    model: nn.Module, stack: str | None, layers: list[int] | None, config: "ZeroInitConfig"
) -> list[Site]:
    """Linear maps that ``target_modules`` may name: of the whole model unless layers are chosen."""
    if config.layer_stack is config.layers_to_transform is config.delta_layers is None:
        return linear_sites(model, None, with_routers=True)
    sites = linear_sites(model, stack, with_routers=True)
    return [site for site in sites if layers is None or site.layer in layers]


def is_chosen(config: "ZeroInitConfig", path: str) -> Any:
    """Whether PEFT's options let a module be adapted; PEFT tells what it excludes from what fits nothing.

    Args:
        config: its ``exclude_modules`` and ``modules_to_save`` keep modules out.
        path: of the module.
    """
    return _by_peft(path, ".*", config.exclude_modules, config.modules_to_save)


def _by_peft(path: str, target_modules: Any, exclude_modules: Any = None, modules_to_save: Any = None) -> Any:
    """PEFT's own answer for one module."""
    options = SimpleNamespace(
        target_modules=target_modules, exclude_modules=exclude_modules, modules_to_save=modules_to_save
    )
    return check_target_module_exists(options, path)


def _by_name(
    sites: list[Site], delta: DeltaConfig, targets: list[str], blocks: tuple[str, ...]
) -> list[Site]:
    """The sites that a delta's ``targets`` and ``exclude`` choose."""
    names = {_last(site) for site in sites}
    if unknown := (set(targets) | set(delta.exclude)) - names - set(blocks):
        raise UserError(
            f"The {delta.kind!r} delta names {sorted(unknown)}, which these layers do not have. "
            f"Use {[*blocks] or 'target_modules'} or some of {sorted(names)}."
        )
    return [
        site
        for site in sites
        if {site.block, _last(site)} & set(targets) and _last(site) not in delta.exclude
    ]


def _some_is(sites: list[Site], name: str) -> bool:
    """Whether a name as PEFT takes them, the end of a path, is that of a site."""
    return any(site.name == name or site.name.endswith(f".{name}") for site in sites)


def _last(site: Site) -> str:
    """Name of a linear map in its parent."""
    return site.name.rpartition(".")[2]
