"""This project's adapter training, timed and watched as litgpt's is.

Its own trainer, a validation first, then one batch again and again. The gate is litgpt's: one per head,
without tanh.
"""

import json
import tempfile
import time
from argparse import Namespace
from importlib.metadata import version
from typing import Any

import torch
from transformers import TrainerCallback, TrainingArguments

from benchmarks.method_comparison.watched import Watch, figures, parser, random_batch, steps_between
from llama_adapter import ZeroInitConfig
from llama_adapter.data import PaddingCollator
from llama_adapter.models import BaseModelConfig, attach_adapter, load_base
from llama_adapter.training import Trainer, TrainingConfig


class Clock(TrainerCallback):
    """Notes when the training begins and when each step ends."""

    def __init__(self) -> None:
        self.moments: list[float] = []

    def on_step_end(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        """Note the time."""
        self.moments.append(time.perf_counter())


def run(options: Namespace) -> dict[str, Any]:
    """Validate and train for some steps.

    Args:
        options: of :func:`main`.

    Returns:
        Seconds of each step but the first, and what reached the adapter's tensors.
    """
    model: Any = load_base(BaseModelConfig(name_or_path=str(options.base), dtype="float32"))
    adapter = ZeroInitConfig(prompt_length=options.prompts, gate_activation="identity")
    adapted = attach_adapter(model, adapter)
    watch = Watch(adapted, {"prompts": "zero_init_prompt.", "gates": "zero_init_gate."})
    ids, labels = random_batch(options.rows, options.tokens, model.config.vocab_size)
    rows = [
        {"input_ids": one, "labels": other, "record_id": f"row {at}"}
        for at, (one, other) in enumerate(zip(ids.tolist(), labels.tolist(), strict=True))
    ]
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=adapted,
            args=TrainingConfig(
                output_dir=folder,
                max_steps=options.steps + 1,
                per_device_train_batch_size=options.rows,
                per_device_eval_batch_size=options.rows,
                eval_on_start=True,
                logging_strategy="no",
                save_strategy="no",
                report_to=[],
            ),
            train_dataset=rows * (options.steps + 1),
            eval_dataset=rows * 2,
            data_collator=PaddingCollator(0),
            callbacks=[clock],
        )
        trainer.train()
    versions = {"llama-adapter": version("llama-adapter"), "torch": torch.__version__}
    return figures(steps_between(clock.moments), watch, versions)


def main(arguments: list[str] | None = None) -> None:
    """Read the options, run, write the figures."""
    chosen = parser(__doc__).parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    chosen.output.write_text(json.dumps(run(chosen)), encoding="utf-8")


if __name__ == "__main__":
    main()
