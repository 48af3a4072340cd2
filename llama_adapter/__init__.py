"""Zero-initialised gated attention for Hugging Face models.

Importing this package makes the PEFT method ``zero_init`` known: at once where PEFT is loaded already,
otherwise as soon as it is. In the same way transformers' Auto classes are told of the model that sees. Until
then neither torch nor PEFT is imported, so the command line answers at once.
"""

import importlib
from typing import TYPE_CHECKING

from llama_adapter.errors import UserError
from llama_adapter.lazy import lazy_attributes, when_imported
from llama_adapter.multimodal.auto import announce

if TYPE_CHECKING:
    from llama_adapter.adapters import ZeroInitConfig

__all__ = ["UserError", "ZeroInitConfig"]

__getattr__ = lazy_attributes(__name__, {"ZeroInitConfig": "llama_adapter.adapters"})

when_imported("peft", lambda: importlib.import_module("llama_adapter.adapters.registration"))
announce()
