"""The `demo` verb: the whole job on one page, with every setting that may be changed.

Unusual: importing this file loads nothing that does the work (`pipeline.py` does), so that the command
line can list the options at once.
"""

from dataclasses import dataclass
from typing import Literal

from llama_adapter.errors import UserError
from llama_adapter.limits import Count, Natural, Rate, Seed


@dataclass(kw_only=True)
class DemoConfig:
    """Fine-tune a real small LLaMA on a task with right and wrong answers, and show what changed.

    Raises:
        UserError: a value is out of range.
    """

    seed: Seed = 0
    """Decides the split of phrasings and values, the items, the first weights and the order of training."""

    steps: Count = 120
    """Optimiser steps."""

    learning_rate: Rate = 1e-2
    """Peak learning rate; a tenth of the steps warm up to it, then a cosine goes down to zero."""

    batch_size: Count = 8
    """Items per step."""

    prompt_length: Count = 10
    """Learned prompts in every layer."""

    prompt_init_std: Rate = 0.3
    """Standard deviation of the prompts at the start. The method's own 1.0 suits thousands of steps; with
    so few, smaller prompts change more."""

    train_size: Count = 800
    """Training items that are made."""

    held_out_size: Count = 100
    """Held-out items, half of them in phrasings that training has not seen."""

    output_dir: str = "runs/demo"
    """Folder for the adapter, the items, `results.json` and the picture; replaces an earlier demo."""

    base: str = "models/SmolLM2-135M-Instruct"
    """Folder of the base model. One named SmolLM2-135M-Instruct is written when it does not exist; to try
    another chat model, name its folder or its name on the hub."""

    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the frozen base model; `auto` takes bfloat16 where the processor has instructions for it
    (AVX-512 BF16, AMX, GPUs since Ampere) and float32 elsewhere. The adapter trains in float32."""

    threads: Natural = 0
    """CPU threads; 0 leaves the choice to torch."""

    def __post_init__(self) -> None:
        """Checks the ranges."""
        self._check("steps", self.steps >= 1, "1 or more")
        self._check("learning_rate", self.learning_rate > 0, "a value above 0")
        self._check("batch_size", self.batch_size >= 1, "1 or more")
        self._check("prompt_length", self.prompt_length >= 1, "1 or more")
        self._check("prompt_init_std", self.prompt_init_std >= 0, "0 or more")
        self._check("train_size", self.batch_size <= self.train_size <= 5000, "batch_size to 5000")
        self._check("held_out_size", 2 <= self.held_out_size <= 500, "2 to 500")
        self._check("threads", self.threads >= 0, "0 (torch's choice) or more")

    def _check(self, name: str, holds: bool, wanted: str) -> None:
        """Refuses a value that does not hold."""
        if not holds:
            raise UserError(f"{name} is {getattr(self, name)}. Use {wanted}.")


def demo(config: DemoConfig) -> int:
    """The `demo` verb: trains, measures, shows, and writes all of it to `output_dir`.

    Returns:
        The exit code.

    Raises:
        UserError: the base model cannot be had here, or a package of the extra `demo` is missing.
    """
    from llama_adapter.demo.pipeline import run

    return run(config)
