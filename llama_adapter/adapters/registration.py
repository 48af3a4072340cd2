"""Makes the method known to PEFT, once per process.

A module of its own, because PEFT's import may wait for it (``lazy.when_imported``) while another thread, in
the middle of importing this package, waits for PEFT: each then holds what the other needs, unless the one
that registers asks for less than the whole package.
"""

from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from peft.utils import register_peft_method

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
