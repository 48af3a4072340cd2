"""Tells transformers' Auto classes of the image-conditioned model, each as soon as it is there.

What they get for model and processor are stand-ins that load the real class when a folder is: the real ones
import PEFT and transformers themselves, and the Auto classes are loaded in the middle of such imports.
"""

import importlib
import sys
from typing import Any

from llama_adapter.lazy import when_imported

_AUTO = "transformers.models.auto"
_OF_ENCODERS = {
    "imagebind": {
        "ImageConditionedModel": "imagebind_llm.model:ImageBindLlm",
        "ImageConditionedProcessor": "imagebind_llm.llm_processor:ImageBindLlmProcessor",
    }
}
"""Kind of encoder -> `module:class` that takes the place of a class of the core."""


def announce() -> None:
    """Have the Auto classes know the model from when they are imported on."""
    for module, register in (
        ("configuration_auto", _register_config),
        ("modeling_auto", _register_model),
        ("processing_auto", _register_processor),
    ):
        when_imported(f"{_AUTO}.{module}", register)


def _register_config() -> None:
    """For ``AutoConfig``."""
    sys.modules[f"{_AUTO}.configuration_auto"].AutoConfig.register(
        _config().model_type, _config(), exist_ok=True
    )


def _register_model() -> None:
    """For ``AutoModelForImageTextToText``."""
    auto = sys.modules[f"{_AUTO}.modeling_auto"].AutoModelForImageTextToText
    auto.register(_config(), _stand_in("ImageConditionedModel"), exist_ok=True)


def _register_processor() -> None:
    """For ``AutoProcessor``."""
    auto = sys.modules[f"{_AUTO}.processing_auto"].AutoProcessor
    auto.register(_config(), _stand_in("ImageConditionedProcessor"), exist_ok=True)


def _config() -> Any:
    """The class of the settings."""
    return importlib.import_module("llama_adapter.multimodal.config").ImageConditionedConfig


def _real(name: str, folder: Any) -> Any:
    """The class of a folder's model or processor, by its encoder."""
    settings = importlib.import_module("llama_adapter.conditioning.files").read_settings(folder, "vision")
    kind = (settings or {}).get("kind", "")
    module, _, found = _OF_ENCODERS.get(kind, {}).get(name, f"llama_adapter.multimodal:{name}").partition(":")
    return getattr(importlib.import_module(module), found)


def _stand_in(name: str) -> type:
    """A class of that name whose ``from_pretrained`` is the one of the real class."""

    def from_pretrained(cls: type, folder: Any, *arguments: Any, **options: Any) -> Any:
        """Load a folder."""
        return _real(name, folder).from_pretrained(folder, *arguments, **options)

    content = {
        "config_class": _config(),
        "from_pretrained": classmethod(from_pretrained),
        "__module__": __name__,
    }
    return type(name, (), content)
