"""Answers from a base model and its adapters: one prompt, a file of prompts, or a chat.

Unusual: importing this package loads no torch, so that the command line can list the options at once;
`Generator` loads it when it is first used.
"""

from typing import TYPE_CHECKING

from llama_adapter.generation.config import GenerateConfig, SamplingConfig
from llama_adapter.lazy import lazy_attributes

if TYPE_CHECKING:
    from llama_adapter.generation.generator import Generator

__all__ = ["GenerateConfig", "Generator", "SamplingConfig", "generate"]

__getattr__ = lazy_attributes(__name__, {"Generator": "llama_adapter.generation.generator"})


def generate(config: GenerateConfig) -> int:
    """The `generate` verb: prints or writes the answers and returns the exit code.

    Raises:
        UserError: the settings, the base model, an adapter or a prompt cannot be used.
    """
    from llama_adapter.generation.run import run

    return run(config)
