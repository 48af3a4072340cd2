"""The PEFT method ``zero_init``: gated prompts, linear deltas and norm tuning on a frozen model.

Importing this package registers the method, once per process.
"""

import peft  # noqa: F401 - first, while nothing else of this package is being imported; see registration.py

from llama_adapter.adapters import registration  # noqa: F401
from llama_adapter.adapters.conditions import prompt_context
from llama_adapter.adapters.config import ZeroInitConfig
from llama_adapter.adapters.tuner import ZeroInitModel

__all__ = ["ZeroInitConfig", "ZeroInitModel", "prompt_context"]
