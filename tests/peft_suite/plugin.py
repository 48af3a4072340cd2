"""A pytest plugin: the tests import another class as ``LoraConfig``, and only those that use it are run.

Nothing of PEFT's tests is changed: ``from peft import LoraConfig`` finds the class of the setting while they
are collected. What their outcomes were is written to a file for ``__main__.py``.
"""

import json
import os
from pathlib import Path
from typing import Any

import peft
import pytest

import llama_adapter  # noqa: F401 - registers the method
from tests.peft_suite.settings import config_class

CONFIG_CLASS = config_class(os.environ["PEFT_SUITE_SETTING"])
_LORAS_OWN = (
    "weighted", "lora_conversion", "with_bias", "dora", "use_rslora", "embedding_layer", "replication",
    "lora_ga", "conv", "eva", "corda", "arrow", "bdlora", "alora", "monteclora",
)  # fmt: skip
"""Parts of names of tests that are about LoRA's own features."""
_COMMON = {"task_type", "target_modules", "modules_to_save", "r", "lora_alpha", "lora_dropout", "bias",
           "layers_to_transform", "trainable_token_indices", "exclude_modules"}  # fmt: skip
_SETTING = getattr(CONFIG_CLASS, "setting", {"deltas": ["lora"]})
_HAS_NO_DELTAS = not _SETTING.get("deltas")
"""``target_modules`` is for deltas."""
_HAS_PROMPTS = bool(_SETTING.get("prompt_length"))
"""Its custom models are without attention."""
_LINEAR = {"MLP", "MLP2", "MLP_LayerNorm"}

peft.LoraConfig = CONFIG_CLASS
_outcomes: dict[str, dict[str, Any]] = {}


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests that are about any method, in their cases with the class."""
    kept = [item for item in items if _is_for_any_method(item)]
    config.hook.pytest_deselected(items=[item for item in items if item not in set(kept)])
    items[:] = kept


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Remember how a test went; of several phases the one that did not pass."""
    if report.when == "call" or report.outcome != "passed":
        known = _outcomes.setdefault(report.nodeid, {"outcome": "passed", "why": ""})
        if report.outcome != "passed":
            known.update(outcome=report.outcome, why=str(report.longrepr)[-600:])


def pytest_sessionfinish() -> None:
    """Write what was seen."""
    Path(os.environ["PEFT_SUITE_RESULTS"]).write_text(json.dumps(_outcomes), encoding="utf-8")


def _is_for_any_method(item: Any) -> bool:
    """Whether a test has the class as its case and gives it nothing that LoRA alone has."""
    if any(part in item.name.lower() for part in _LORAS_OWN):
        return False
    cases = getattr(getattr(item, "callspec", None), "params", {})
    given = cases.get("config_cls", cases.get("config_class"))
    if given is not None:
        if "test_custom" in item.nodeid and _HAS_PROMPTS:
            return False
        if "with_target_modules" in item.name and _HAS_NO_DELTAS:
            return False
        options = cases.get("config_kwargs", {})
        is_linear = "test_custom" not in item.nodeid or cases.get("model_id") in _LINEAR
        return given is CONFIG_CLASS and is_linear and set(options) <= _COMMON
    if "peft_config" in cases:
        return isinstance(cases["peft_config"], CONFIG_CLASS)
    return "test_trainable" in item.nodeid and "LoraConfig" in item.function.__code__.co_names
