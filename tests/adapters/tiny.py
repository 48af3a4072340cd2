"""Tiny random models shared by the adapter tests."""

import torch
from peft import get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from llama_adapter import ZeroInitConfig

VOCABULARY = 97


def llama(**options):
    """A random 4-layer LLaMA with 4 query and 2 key/value heads, the same at every call."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=VOCABULARY, num_key_value_heads=2, **{**sizes, **options})
    return LlamaForCausalLM(config).eval()


def ids(rows=2, length=12):
    return torch.randint(0, VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(1))


def adapted(model=None, adapter_name="default", **options):
    """An adapted model whose adapter is far from its initial values."""
    config = ZeroInitConfig(task_type="CAUSAL_LM", **options)
    model = get_peft_model(model or llama(), config, adapter_name=adapter_name).eval()
    disturb(model)
    return model


def disturb(model, seed=2):
    """Move every trainable tensor away from its start, gates differently per head."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.5)
