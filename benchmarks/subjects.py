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

_ADAPTERS: dict[str, Callable[[int], Any]] = {
    ZERO_INIT: lambda layers: ZeroInitConfig(
        task_type="CAUSAL_LM", prompt_length=LENGTH, prompt_layers=layers, gate="scalar"
    ),
    ADAPTION_PROMPT: lambda layers: AdaptionPromptConfig(
        task_type="CAUSAL_LM", adapter_len=LENGTH, adapter_layers=layers
    ),
    LORA: lambda layers: LoraConfig(task_type="CAUSAL_LM", r=8, target_modules=["q_proj", "v_proj"]),
}


def load_base(folder: Path = DEFAULT_FOLDER) -> nn.Module:
    """SmolLM2-135M-Instruct in float32, written once as the demo does."""
    if folder == DEFAULT_FOLDER:
        ensure_base(folder)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def load_adapted(name: str, folder: Path = DEFAULT_FOLDER) -> nn.Module:
    """The base with an adapter in every layer."""
    base: Any = load_base(folder)
    torch.manual_seed(0)
    return get_peft_model(base, _ADAPTERS[name](base.config.num_hidden_layers)).eval()
