"""Tells transformers' Auto classes of a model that sees, each as soon as it is there.

What they get for model and processor are stand-ins that load the real class when a folder is: the real ones
import PEFT and transformers themselves, and the Auto classes are loaded in the middle of such imports.
"""

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Announced:
    """The names of one kind of model that sees."""

    config: str
    """`module:class` of its settings; the module must not need what imports the Auto classes."""
    model: str
    """Name of its class."""
    processor: str
    """Name of its processor's class."""
    find: Callable[[str, Any], type]
    """The class of such a name for a folder."""

    def register_config(self) -> None:
        """For ``AutoConfig``."""
        auto = sys.modules[f"{_AUTO}.configuration_auto"].AutoConfig
        auto.register(self._config().model_type, self._config(), exist_ok=True)

    def register_model(self) -> None:
        """For ``AutoModelForImageTextToText``."""
        auto = sys.modules[f"{_AUTO}.modeling_auto"].AutoModelForImageTextToText
        auto.register(self._config(), self._stand_in(self.model), exist_ok=True)

    def register_processor(self) -> None:
        """For ``AutoProcessor``."""
        auto = sys.modules[f"{_AUTO}.processing_auto"].AutoProcessor
        auto.register(self._config(), self._stand_in(self.processor), exist_ok=True)

    def _config(self) -> Any:
        """The class of the settings."""
        return named_class(self.config)

    def _stand_in(self, name: str) -> type:
        """A class of that name whose ``from_pretrained`` is the one of the real class."""

        def from_pretrained(cls: type, folder: Any, *arguments: Any, **options: Any) -> Any:
            """Load a folder."""
            real: Any = self.find(name, folder)
            return real.from_pretrained(folder, *arguments, **options)

        content = {
            "config_class": self._config(),
            "from_pretrained": classmethod(from_pretrained),
            "__module__": __name__,
        }
        return type(name, (), content)


def announce(kind: Announced | None = None) -> None:
    """Have the Auto classes know a kind of model from when they are imported on; by default the core's."""
    kind = kind or Announced(
        "llama_adapter.multimodal.config:ImageConditionedConfig",
        "ImageConditionedModel",
        "ImageConditionedProcessor",
        _of_folder,
    )
    for module, register in (
        ("configuration_auto", kind.register_config),
        ("modeling_auto", kind.register_model),
        ("processing_auto", kind.register_processor),
    ):
        when_imported(f"{_AUTO}.{module}", register)


def named_class(place: str) -> Any:
    """What a text of the form `module:class` names."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


def _of_folder(name: str, folder: Any) -> Any:
    """The class of a folder's model or processor, by its encoder."""
    settings = importlib.import_module("llama_adapter.conditioning.files").read_settings(folder, "vision")
    kind = (settings or {}).get("kind", "")
    return named_class(_OF_ENCODERS.get(kind, {}).get(name, f"llama_adapter.multimodal:{name}"))
