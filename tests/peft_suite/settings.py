"""The settings of this method that take LoRA's place, and how a ``LoraConfig`` call becomes one of them."""

import inspect
from collections.abc import Callable
from typing import Any, ClassVar

import peft
import torch
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

from llama_adapter import ZeroInitConfig
from llama_adapter.adapters.peft_type import ZERO_INIT
from llama_adapter.adapters.tuner import ZeroInitModel

CONTROL = "peft-lora"
V2_PARTS = {"deltas": ["output_scale", "bias"], "norms": True}
SETTINGS: dict[str, dict[str, Any]] = {
    "prompts": {"prompt_length": 4},
    "prompts-bias-scale-norms": {"prompt_length": 4, **V2_PARTS},
    "bias-scale-norms": {"prompt_length": 0, **V2_PARTS},
    "lora": {"prompt_length": 0, "deltas": ["lora"]},
    "all": {"prompt_length": 4, "new_gate": True, "deltas": ["output_scale", "bias", "lora"], "norms": True},
}
_OF_LORA_ALONE = {"r", "lora_alpha", "lora_dropout", "bias", "fan_in_fan_out", "init_lora_weights"}


def config_class(setting: str) -> type:
    """The class that stands where the tests say ``LoraConfig``."""
    if setting == CONTROL:
        return peft.LoraConfig
    InPlaceOfLora.setting = SETTINGS[setting]
    PEFT_TYPE_TO_CONFIG_MAPPING[ZERO_INIT] = InPlaceOfLora
    ZeroInitModel.inject_adapter = _stirring(ZeroInitModel.inject_adapter)
    return InPlaceOfLora


class InPlaceOfLora(ZeroInitConfig):
    """Takes what tests give LoRA: what only LoRA has is left out, or refused where it changes results."""

    setting: ClassVar[dict[str, Any]] = {}
    __signature__ = inspect.signature(ZeroInitConfig)

    def __init__(self, **given: Any) -> None:
        if not given.get("peft_type"):  # otherwise it is read from a file, or copied
            given = _translated(self.setting, given)
        self.init_weights = given.pop("init_weights", True)
        super().__init__(**given)


InPlaceOfLora.__init__.__signature__ = inspect.signature(ZeroInitConfig.__init__)  # PEFT looks there too
InPlaceOfLora.__name__ = "LoraConfig"  # by which tests are named


def _translated(setting: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Options of this method for those of a ``LoraConfig``."""
    if given.get("bias", "none") != "none":
        raise TypeError(
            f"bias={given['bias']!r} trains the base's biases, got an unexpected keyword argument"
        )
    own = {name: value for name, value in given.items() if name not in _OF_LORA_ALONE}
    if not setting.get("deltas") or own.get("target_modules") is None:
        own.pop("target_modules", None)
    return {**setting, **own, "init_weights": given.get("init_lora_weights", True) is not False}


def _stirring(inject: Callable[..., None]) -> Callable[..., None]:
    """Adapters whose config has ``init_weights=False`` do something from the start, as the tests want it."""

    def inject_and_stir(self: Any, model: Any, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        inject(self, model, adapter_name, *args, **kwargs)
        if getattr(self.peft_config[adapter_name], "init_weights", True):
            return
        for name, parameter in model.named_parameters():
            if self.prefix in name and f".{adapter_name}." in name and not parameter.is_meta:
                with torch.no_grad():
                    parameter.add_(torch.randn_like(parameter) * 0.3)

    return inject_and_stir
