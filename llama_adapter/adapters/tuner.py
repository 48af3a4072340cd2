"""The PEFT tuner: plans which modules an adapter touches, attaches the parts, and takes them off again.

A part of an adapter is a planner, a function from a base model and the config to ``{module path: how to
attach}``. Adding a part means writing a planner beside its layer and naming it in ``_plan``.

Unlike PEFT's own tuners this one does not match ``target_modules`` by pattern: the plan is exact and follows
from the config alone, so it is never stored.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from peft import PeftConfig
from peft.tuners.trainable_tokens.layer import TrainableTokensLayer
from peft.tuners.tuners_utils import (
    BaseTuner,
    BaseTunerLayer,
    _maybe_include_all_linear_layers,
    find_parameter_name_by_module,
    onload_layer,
)
from peft.utils import AuxiliaryTrainingWrapper
from torch import nn

from llama_adapter.adapters.config import ZeroInitConfig
from llama_adapter.adapters.fingerprint import differences, fingerprint
from llama_adapter.adapters.layer import Plan, ZeroInitLayer
from llama_adapter.adapters.linear import plan_deltas
from llama_adapter.adapters.merging import biases_to_come, check_mergeable, keep_biases
from llama_adapter.adapters.norms import plan_norms
from llama_adapter.adapters.prompts import PromptLayer, plan_prompts
from llama_adapter.adapters.routing import route
from llama_adapter.adapters.structure import find_layer_stack, layer_indices
from llama_adapter.adapters.targets import is_chosen
from llama_adapter.attention import drop_prompts
from llama_adapter.errors import UserError
from llama_adapter.forward_context import current
from llama_adapter.whole_loads import Misfit, warn_of_misfit


class ZeroInitModel(BaseTuner):
    """A base model with zero-init adapters; users get it from ``peft.get_peft_model``."""

    prefix = "zero_init_"
    tuner_layer_cls = ZeroInitLayer

    def _prepare_adapter_config(self, peft_config: Any, model_config: dict) -> PeftConfig:
        """Compare the base with the one the adapter was made for, or remember this one."""
        if not peft_config.knows_base:
            peft_config.base_fingerprint = fingerprint(self.model)
        elif found := differences(peft_config.base_fingerprint, self.model):
            warnings.warn(
                f"This adapter was trained on another base model: {'; '.join(found)}. "
                f"Load it on the base it was trained on, or expect poor answers.",
                UserWarning,
                stacklevel=2,
            )
        return peft_config

    def _prepare_model(self, peft_config: Any, model: nn.Module) -> None:
        """Plan before anything is changed, so that an error leaves the model as it was."""
        _maybe_include_all_linear_layers(peft_config, model)
        self._targets = _plan(model, peft_config)
        for module in model.modules():
            if isinstance(module, ZeroInitLayer):  # of an adapter of this name that was there before
                module.drop_adapter(self._injected)
        if _free_frozen_layers not in model._forward_pre_hooks.values():
            model.register_forward_pre_hook(_free_frozen_layers)

    def _check_target_module_exists(self, peft_config: Any, key: str) -> Any:  # type: ignore[override]
        """Whether the plan names a module, and PEFT's options do not keep it out."""
        return is_chosen(peft_config, key) if key in self._targets else False

    def _add_modules_to_save_to_tie(self, peft_config: Any, tied_weight_keys: list[str]) -> None:
        """Have the embeddings saved whole once, and the layers that share their weights follow them."""
        embeddings = find_parameter_name_by_module(self.model, self.model.get_input_embeddings())
        tied = set(tied_weight_keys)
        others = [
            name
            for name in peft_config.modules_to_save
            if name != embeddings and not any(key == name or key.endswith(f".{name}") for key in tied)
        ]
        peft_config.modules_to_tie = tied
        peft_config.modules_to_save = [embeddings, *others]

    def _add_targets_to_tie(self, peft_config: Any, tied_weight_keys: list[str]) -> None:
        """Deltas sit on linear maps alone, and embeddings are none.

        Raises:
            UserError: always.
        """
        raise UserError(
            f"ensure_weight_tying cannot tie deltas of {sorted(tied_weight_keys)} to the embeddings, which "
            f"take none. Use modules_to_save for the embeddings, or leave ensure_weight_tying out."
        )

    def _create_and_replace(
        self,
        peft_config: PeftConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        """Attach the planned part to one module."""
        self._targets[current_key](adapter_name, parent, target_name, target)

    @contextmanager
    def _enable_peft_forward_hooks(
        self, *args: Any, adapter_names: Any = None, **kwargs: Any
    ) -> Iterator[None]:
        """What PEFT enters around a pass or a generation: each row through the adapter named for it."""
        if adapter_names is None:
            yield
            return
        with route(self, adapter_names):
            yield

    def inject_adapter(self, model: nn.Module, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        """Attach an adapter; modules follow from its config, never from the names in a checkpoint."""
        kwargs["state_dict"] = None
        self._injected = adapter_name
        super().inject_adapter(model, adapter_name, *args, **kwargs)

    def merge_adapter(self, adapter_names: list[str] | None = None, safe_merge: bool = False) -> None:
        """Fold adapters into the live model until ``unmerge_adapter``; a LoRA that was in it before stays.

        Args:
            adapter_names: which; None for the active ones.
            safe_merge: whether weights that would not be finite are refused.

        Raises:
            NotImplementedError: one of them, or of those that are active beside them, has prompts.
            UserError: a map is quantised, or a weight would not be finite. Nothing was changed.
        """
        names = list(adapter_names or self.active_adapters)
        check_mergeable(self.model, names, safe_merge)
        check_mergeable(self.model, [name for name in self.active_adapters if name not in names], False)
        self._check_merge_allowed()
        for module in self._mergeable_layers():
            with onload_layer(module):
                module.merge(adapter_names=names, safe_merge=safe_merge)

    def unmerge_adapter(self) -> None:
        """Give the base its own weights back, to the bit."""
        for module in self._mergeable_layers():
            if module.merged:
                with onload_layer(module):
                    module.unmerge()

    def _mergeable_layers(self) -> list[BaseTunerLayer]:
        """This method's layers, and PEFT's for trained tokens."""
        kinds = (ZeroInitLayer, TrainableTokensLayer)
        return [module for module in self.model.modules() if isinstance(module, kinds)]

    def _unload_and_optionally_merge(
        self,
        merge: bool = True,
        progressbar: bool = False,
        safe_merge: bool = False,
        adapter_names: list[str] | None = None,
    ) -> Any:
        """Take every part off; with ``merge`` fold what weights can express into the base first."""
        names = list(adapter_names or self.active_adapters)
        new_biases: list[str] = []
        if merge:
            check_mergeable(self.model, names, safe_merge)
            new_biases = biases_to_come(self.model, names)
        else:
            self.unmerge_adapter()
        for module in list(self.model.modules()):
            if any(isinstance(child, PromptLayer) for child in module.children()):
                drop_prompts(module)
        for handle, hook in list(self.model._forward_pre_hooks.items()):
            if hook is _free_frozen_layers:
                del self.model._forward_pre_hooks[handle]
        plain: Any = super()._unload_and_optionally_merge(merge, progressbar, safe_merge, names)
        keep_biases(plain, new_biases)
        return plain

    def _replace_module(
        self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module
    ) -> None:
        """Put a base module back; PEFT's own version copies a weight that norms of some models lack.

        A LoRA that was in the base before stays there, where PEFT would take off every layer of every method.
        """
        if isinstance(child, ZeroInitLayer):
            setattr(parent, child_name, child.base_layer)
        elif isinstance(child, AuxiliaryTrainingWrapper):
            setattr(parent, child_name, new_module)

    def _enable_adapter_layers(self, enabled: bool = True) -> None:
        """Switch this method's layers; a LoRA that was in the base before belongs to the base."""
        for module in self.model.modules():
            if isinstance(module, (ZeroInitLayer, AuxiliaryTrainingWrapper)):
                module.enable_adapters(enabled)

    def _mark_only_adapters_as_trainable(self, model: nn.Module) -> None:
        """Freeze the base, with a LoRA that was in it before."""
        super()._mark_only_adapters_as_trainable(model)
        for module in model.modules():
            if isinstance(module, BaseTunerLayer) and not isinstance(module, ZeroInitLayer):
                module.requires_grad_(False)

    @classmethod
    def _get_adapter_state_dict(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """This method's tensors, without those of a LoRA that was in the base before."""
        tensors = super()._get_adapter_state_dict(*args, **kwargs)
        return {name: tensor for name, tensor in tensors.items() if f".{cls.prefix}" in name}

    @classmethod
    def _remap_adapter_state_dict_for_load(
        cls, model: nn.Module, config: Any, adapter_name: str, state_dict: dict[str, Any]
    ) -> dict[str, Any]:
        """As PEFT has it; tensors of the file that the model has no place for are no secret."""
        mapped: dict[str, Any] = super()._remap_adapter_state_dict_for_load(
            model=model, config=config, adapter_name=adapter_name, state_dict=state_dict
        )
        mine = f".{cls.prefix}", f".{adapter_name}"
        shapes = {
            name: tensor.shape for name, tensor in model.state_dict().items() if all(p in name for p in mine)
        }
        found = {name: tensor.shape for name, tensor in mapped.items() if mine[0] in name}
        warn_of_misfit(Misfit.of_shapes(shapes, found), "The file of the adapter", type(model).__name__)
        return mapped


def _plan(model: nn.Module, config: ZeroInitConfig) -> Plan:
    """Which modules an adapter touches and how."""
    stack = (
        find_layer_stack(model, config.layer_stack, config.layers_pattern) if _needs_layers(config) else None
    )
    prompt_layers, delta_layers = (
        layer_indices(model, stack, *_layers_of(config, name)) for name in ("prompt_layers", "delta_layers")
    )
    return (
        plan_prompts(model, stack, prompt_layers, config.prompts)
        | plan_deltas(model, stack, delta_layers, config)
        | plan_norms(model, stack, delta_layers, config.tuned_norms)
    )


def _needs_layers(config: ZeroInitConfig) -> bool:
    """Whether an adapter is about layers; maps that are named for a whole model, as in PEFT, are not."""
    about_layers = (config.prompts, config.tuned_norms, config.layer_stack, config.delta_layers)
    named = all(delta.targets is None for delta in config.linear_deltas)
    return not named or config.layers_to_transform is not None or any(about_layers)


def _layers_of(config: ZeroInitConfig, name: str) -> tuple[str, Any]:
    """Name and value of the option that says which layers get a part."""
    if config.layers_to_transform is not None:
        chosen = config.layers_to_transform
        return "layers_to_transform", [chosen] if isinstance(chosen, int) else chosen
    return name, getattr(config, name)


def _free_frozen_layers(model: Any, args: tuple[Any, ...]) -> None:
    """Forward pre-hook: nothing below the first adapted layer is recorded for the backward pass.

    transformers and PEFT make the embeddings require gradients as soon as activation checkpointing is on,
    which reentrant checkpoints need; it makes every frozen layer keep its activations. Non-reentrant ones do
    not need it.

    Raises:
        UserError: reentrant checkpoints came with conditions, whose gradients they would lose.
    """
    if not getattr(model, "_require_grads_hooks", None):
        return
    if _has_reentrant_checkpoints(model):
        if current().conditions is not None:
            raise UserError(
                f"Activation checkpointing of {type(model).__name__} has use_reentrant=True, through which "
                f"conditions lose gradients. Set activation_checkpointing_kwargs={{'use_reentrant': False}}."
            )
        warnings.warn(
            f"Activation checkpointing of {type(model).__name__} has use_reentrant=True, which records every "
            f"frozen layer. Set activation_checkpointing_kwargs={{'use_reentrant': False}} to save memory.",
            UserWarning,
            stacklevel=2,
        )
        return
    model.disable_input_require_grads()
    for module in model.modules():  # it forgets hooks that were registered twice, as several trainers do
        for handle, hook in list(module._forward_hooks.items()):
            if getattr(hook, "__name__", "") == "make_inputs_require_grads":
                del module._forward_hooks[handle]


def _has_reentrant_checkpoints(model: nn.Module) -> bool:
    """Whether some layer is run again by a checkpoint that sees tensors among its arguments alone."""
    return any(
        getattr(module, "gradient_checkpointing", False)
        and getattr(getattr(module, "_gradient_checkpointing_func", None), "keywords", {}).get(
            "use_reentrant"
        )
        for module in model.modules()
    )
