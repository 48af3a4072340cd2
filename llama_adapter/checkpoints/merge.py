"""The `merge` verb: an adapter folded into a plain Hugging Face model.

Unusual: importing this file loads nothing that does the work (`merged_model.py` does), so that the command
line can list the options at once.
"""

from dataclasses import dataclass, field
from typing import Literal


@dataclass(kw_only=True)
class MergeConfig:
    """Fold an adapter's bias, scale, LoRA and tuned norms into its base model."""

    adapter: str
    """Folder of the adapter; of this package or another PEFT method that merges."""

    output: str
    """Folder to write; must not exist yet."""

    base: str | None = None
    """Folder or hub name of the base model; without it, the one that the adapter names."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the merged model; `auto` keeps the base's."""

    allow_misfit: list[str] = field(default_factory=list)
    """Tensors, by name or pattern such as ``lm_head.*``, that may be missing, unexpected, of another shape or
    not finite in the files of base and adapters."""

    overwrite: bool = False
    """Replace what is at `output`."""


def merge(config: MergeConfig) -> int:
    """The `merge` verb.

    Returns:
        The exit code.

    Raises:
        UserError: the adapter has prompts, or the model has no place for what it holds.
    """
    from llama_adapter.checkpoints.merged_model import write_merged

    return write_merged(config)
