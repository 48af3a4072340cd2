"""The base that the planner's tests plan for: the sizes of a small LLaMA, no weights."""

from transformers import LlamaConfig


def write_base(folder, dtype):
    """Write its config.json."""
    LlamaConfig(
        num_hidden_layers=2,
        hidden_size=64,
        intermediate_size=96,
        num_attention_heads=4,
        vocab_size=100,
        dtype=dtype,
    ).save_pretrained(folder)
    return folder
