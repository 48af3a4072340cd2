"""The PEFT method ``zero_init``: gated prompts, linear deltas and norm tuning on a frozen model.

Importing this package registers the method, once per process.
"""

from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from peft.utils import register_peft_method

from llama_adapter.adapters.conditions import prompt_context
from llama_adapter.adapters.config import ZeroInitConfig
from llama_adapter.adapters.peft_type import ZERO_INIT
from llama_adapter.adapters.tuner import ZeroInitModel

if ZERO_INIT not in PEFT_TYPE_TO_TUNER_MAPPING:
    register_peft_method(name="zero_init", config_cls=ZeroInitConfig, model_cls=ZeroInitModel)
elif PEFT_TYPE_TO_TUNER_MAPPING[ZERO_INIT] is not ZeroInitModel:
    raise ImportError(
        f"peft already has a method 'zero_init': {PEFT_TYPE_TO_TUNER_MAPPING[ZERO_INIT]!r}. "
        f"Install a peft release without it, or update llama-adapter."
    )

__all__ = ["ZeroInitConfig", "ZeroInitModel", "prompt_context"]
