"""A configuration names registered classes, and imports nothing else."""

import sys

import pytest
from peft import LoraConfig, PeftConfig

from llama_adapter.class_paths import ELSEWHERE, registered_class
from llama_adapter.errors import UserError
from llama_adapter.training.tuning import FullTuning, TuningConfig


def test_public_and_full_names_of_loaded_classes_are_taken():
    full = f"{LoraConfig.__module__}.LoraConfig"
    for name in ("peft.LoraConfig", full, "LoraConfig"):
        assert registered_class(name, [PeftConfig], "adapter.class_path") is LoraConfig
    assert registered_class("FullTuning", [TuningConfig], "tuning") is FullTuning


def test_classes_of_this_repository_are_imported_when_they_are_named():
    assert all(registered_class(name, [object], "x").__name__ for name in ELSEWHERE)
    with pytest.raises(UserError, match="no registered kind of PeftConfig"):
        registered_class("sphinx_ft.SphinxTuning", [PeftConfig], "adapter.class_path")


@pytest.mark.parametrize(
    "path", ["this.Zen", "this", "os.system", "peft.nothing", "peft.get_peft_model", "", None, 3]
)
def test_nothing_else_is_taken_or_imported(path):
    sys.modules.pop("this", None)
    with pytest.raises(UserError, match="is no registered kind of PeftConfig"):
        registered_class(path, [PeftConfig], "adapter.class_path")
    assert "this" not in sys.modules


def test_a_near_name_is_suggested():
    with pytest.raises(UserError, match="Did you mean 'peft"):
        registered_class("peft.tuners.lora.config.LoraConfg", [PeftConfig], "adapter.class_path")
