"""Zero-initialised gated attention for Hugging Face models.

Importing this package registers the PEFT method ``zero_init``; it pulls in no optional dependency.
"""

from llama_adapter.adapters import ZeroInitConfig
from llama_adapter.errors import UserError

__all__ = ["UserError", "ZeroInitConfig"]
