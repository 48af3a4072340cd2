"""What the method overrides in PEFT, and what it calls of PEFT's private parts, is still as it was."""

import inspect

import peft
import pytest
from peft.tuners import tuners_utils
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer

from llama_adapter.adapters.config import ZeroInitConfig
from llama_adapter.adapters.layer import ZeroInitLayer
from llama_adapter.adapters.linear import ZeroInitLinear
from llama_adapter.adapters.norms import ZeroInitNorm
from llama_adapter.adapters.prompts import PromptLayer
from llama_adapter.adapters.tuner import ZeroInitModel

TUNER = {
    "_add_modules_to_save_to_tie": ("self", "peft_config", "tied_weight_keys"),
    "_add_targets_to_tie": ("self", "peft_config", "tied_weight_keys"),
    "_check_target_module_exists": ("peft_config", "key"),
    "_create_and_replace": (
        "self", "peft_config", "adapter_name", "target", "target_name", "parent", "current_key",
        "parameter_name",
    ),
    "_enable_adapter_layers": ("self", "enabled"),
    "_get_adapter_state_dict": (
        "model", "config", "adapter_name", "state_dict", "unwanted_adapter_names",
    ),
    "_mark_only_adapters_as_trainable": ("self", "model"),
    "_prepare_adapter_config": ("self", "peft_config", "model_config"),
    "_prepare_model": ("self", "peft_config", "model"),
    "_remap_adapter_state_dict_for_load": ("model", "config", "adapter_name", "state_dict"),
    "_replace_module": ("self", "parent", "child_name", "new_module", "child"),
    "_unload_and_optionally_merge": ("self", "merge", "progressbar", "safe_merge", "adapter_names"),
    "inject_adapter": (
        "self", "model", "adapter_name", "autocast_adapter_dtype", "low_cpu_mem_usage", "state_dict",
    ),
    "merge_adapter": ("self", "adapter_names", "safe_merge"),
    "unmerge_adapter": ("self",),
}  # fmt: skip
"""Methods of PEFT's tuner that ours overrides -> parameters of PEFT's."""

LAYER = {
    "_move_adapter_to_device_of_base_layer": ("self", "adapter_name", "device"),
    "delete_adapter": ("self", "adapter_name"),
    "merge": ("self", "safe_merge", "adapter_names"),
    "unmerge": ("self",),
}
"""Likewise of PEFT's tuner layer."""

CONFIG = {"save_pretrained": ("self", "save_directory", "kwargs"), "to_dict": ("self",)}
"""Likewise of PEFT's config."""

CALLED = {
    "_maybe_include_all_linear_layers": ("peft_config", "model"),
    "check_adapters_to_merge": ("module", "adapter_names"),
    "check_target_module_exists": ("config", "key"),
    "find_parameter_name_by_module": ("model", "reference_module"),
    "onload_layer": ("layer",),
}
"""Functions of ``peft.tuners.tuners_utils`` that are no documented interface."""

HOSTS = {"tuner": (BaseTuner, TUNER), "layer": (BaseTunerLayer, LAYER), "config": (peft.PeftConfig, CONFIG)}
OURS = {
    "tuner": [ZeroInitModel],
    "layer": [ZeroInitLayer, ZeroInitLinear, ZeroInitNorm, PromptLayer],
    "config": [ZeroInitConfig],
}


def parameters(function):
    return tuple(inspect.signature(function).parameters)


@pytest.mark.parametrize(
    ("host", "name", "expected"),
    [(host, name, expected) for host, table in HOSTS.values() for name, expected in table.items()],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_every_overridden_method_has_the_expected_signature(host, name, expected):
    own = inspect.getattr_static(host, name)
    assert parameters(getattr(own, "__func__", own)) in (expected, ("cls", *expected))


@pytest.mark.parametrize("kind", OURS)
def test_the_list_of_overridden_methods_is_complete(kind):
    host, table = HOSTS[kind]
    functions = (staticmethod, classmethod)
    ours = {
        name
        for part in OURS[kind]
        for name, value in vars(part).items()
        if (inspect.isfunction(value) or isinstance(value, functions)) and hasattr(host, name)
    }
    of_modules = {"forward"} if kind == "tuner" else set()
    assert {name for name in ours if not name.startswith("__")} - of_modules <= set(table) | {
        "_enable_peft_forward_hooks"
    }
    assert set(table) <= ours


@pytest.mark.parametrize("name", CALLED)
def test_every_private_function_is_there(name):
    assert parameters(getattr(tuners_utils, name)) == CALLED[name]


def test_a_pass_is_still_entered_through_the_hook():
    """``adapter_names`` reaches the tuner this way; ``PeftModel`` finds the method by its name."""
    source = inspect.getsource(peft.PeftModel)
    assert "_enable_peft_forward_hooks" in source
