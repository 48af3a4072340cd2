"""The models that are compared: one base, three adapters of the same reach."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import AdaptionPromptConfig, LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM

from llama_adapter import ZeroInitConfig
from llama_adapter.demo.base_model import DEFAULT_FOLDER, ensure_base

LENGTH = 10
"""Prompts per layer."""

ZERO_INIT, ADAPTION_PROMPT, LORA = "zero_init", "peft AdaptionPrompt", "peft LoRA q,v r=8"
DEFAULT_ZERO_INIT = "zero_init with its defaults"
"""A gate per head, where ``ZERO_INIT`` has PEFT's one gate per layer."""

_ADAPTERS: dict[str, Callable[[int], Any]] = {
    ZERO_INIT: lambda layers: ZeroInitConfig(
        task_type="CAUSAL_LM", prompt_length=LENGTH, prompt_layers=layers, gate="scalar"
    ),
    DEFAULT_ZERO_INIT: lambda layers: ZeroInitConfig(
        task_type="CAUSAL_LM", prompt_length=LENGTH, prompt_layers=layers
    ),
    ADAPTION_PROMPT: lambda layers: AdaptionPromptConfig(
        task_type="CAUSAL_LM", adapter_len=LENGTH, adapter_layers=layers
    ),
    LORA: lambda layers: LoraConfig(task_type="CAUSAL_LM", r=8, target_modules=["q_proj", "v_proj"]),
}


def load_base(folder: Path = DEFAULT_FOLDER, dtype: torch.dtype = torch.float32) -> nn.Module:
    """SmolLM2-135M-Instruct, written once as the demo does."""
    if folder == DEFAULT_FOLDER:
        ensure_base(folder)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()


def load_adapted(name: str, folder: Path = DEFAULT_FOLDER, dtype: torch.dtype = torch.float32) -> nn.Module:
    """The base with an adapter in every layer, whose weights are in float32."""
    base: Any = load_base(folder, dtype)
    torch.manual_seed(0)
    return get_peft_model(base, adapter_config(name, base.config.num_hidden_layers)).eval()


def adapter_config(name: str, layers: int) -> Any:
    """The options of an adapter by its name here, for a base of so many layers."""
    return _ADAPTERS[name](layers)
