"""litgpt's own adapter training, timed and watched; run by an environment of its own that has litgpt.

What is unusual: nothing of litgpt is rewritten. Its ``fit`` runs as ``litgpt finetune_adapter`` runs it, on
random weights of SmolLM2-135M's shape; a step lasts from the moment it asks for one batch to the moment it
asks for the next. Of this project only ``watched`` is imported, which needs nothing but torch.
"""

import json
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning
import torch
from litgpt.adapter import GPT, Config, mark_only_adapter_as_trainable
from litgpt.args import EvalArgs, TrainArgs
from litgpt.finetune.adapter import fit, get_lr_scheduler
from litgpt.utils import instantiate_torch_optimizer

from benchmarks.method_comparison.watched import Watch, figures, parser, random_batch, steps_between

MODEL = "SmolLM2-135M"
NEVER = 10**9


class Batches:
    """A loader that hands out one batch again and again, and notes when it is asked."""

    def __init__(self, batch: dict[str, Any], count: int, before: Callable[[], None]) -> None:
        self.dataset = [{"input_ids": row} for row in batch["input_ids"]]
        self.asked: list[float] = []
        self._batch, self._count, self._before = batch, count, before

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for _ in range(self._count):
            self.asked.append(time.perf_counter())
            self._before()
            yield self._batch


def run(options: Namespace) -> dict[str, Any]:
    """Train as litgpt does, for some steps.

    Args:
        options: of :func:`main`.

    Returns:
        Seconds of each step but the first, and what reached the adapter's tensors.
    """
    fabric = lightning.Fabric(devices=1, accelerator="cpu", precision="32-true")
    fabric.launch()
    fabric.seed_everything(0, verbose=False)
    sizes = {"adapter_prompt_length": options.prompts, "adapter_start_layer": 0} | json.loads(options.shape)
    model = GPT(Config.from_name(MODEL, **sizes))
    mark_only_adapter_as_trainable(model)
    watch = Watch(model, {"prompts": "adapter_wte", "gates": "gating_factor"})
    layers = [module for module in model.modules() if hasattr(module, "adapter_kv_cache")]

    def clear() -> None:
        for layer in layers if options.clear_cache else []:
            layer.adapter_kv_cache = None

    ids, labels = random_batch(options.rows, options.tokens, model.config.vocab_size)
    counted = {name: torch.full((len(ids), 1), ids.shape[1]) for name in ("raw", "raw_plus_prompt_template")}
    batch = {"input_ids": ids, "labels": labels, "token_counts": counted}
    train = Batches(batch, options.steps + 2, clear)
    validation = Batches(batch, 0 if options.no_validation else 2, lambda: None)
    error = _fit(fabric, model, train, validation, options)
    versions = {"litgpt": version("litgpt"), "torch": torch.__version__}
    # fit stops after the last step without asking for another batch
    return figures(steps_between([*train.asked[1:], time.perf_counter()]), watch, versions, error)


def _fit(fabric: Any, model: GPT, train: Batches, validation: Batches, options: Namespace) -> str:
    """Run litgpt's loop with its defaults for whatever is not the batch; the error that ends it, if any."""
    wrapped = fabric.setup_module(model)
    optimizer = fabric.setup_optimizers(instantiate_torch_optimizer("AdamW", wrapped.parameters()))
    settings = TrainArgs(
        save_interval=None,
        log_interval=NEVER,
        global_batch_size=options.rows,
        micro_batch_size=options.rows,
        lr_warmup_steps=1,
        epochs=1,
        max_steps=options.steps + 1,
    )
    with tempfile.TemporaryDirectory() as folder:
        try:
            fit(
                fabric=fabric,
                model=wrapped,
                optimizer=optimizer,
                scheduler=get_lr_scheduler(optimizer, 1, options.steps + 2),
                train_dataloader=train,
                val_dataloader=validation,
                devices=1,
                checkpoint_dir=options.base,
                out_dir=Path(folder),
                train=settings,
                eval=EvalArgs(interval=NEVER, max_new_tokens=1, max_iters=2),
                data=None,
            )
        except RuntimeError as problem:
            return str(problem).partition("(")[0].strip()
    return ""


def main() -> None:
    """Read the options, run, write the figures."""
    options = parser(__doc__)
    options.add_argument("--shape", default="{}", help="JSON with other sizes of the model")
    options.add_argument("--no-validation", action="store_true", help="leave the first validation no batch")
    options.add_argument("--clear-cache", action="store_true", help="drop cached prompt keys before a step")
    chosen = options.parse_args()
    torch.set_num_threads(chosen.threads)
    chosen.output.write_text(json.dumps(run(chosen)), encoding="utf-8")


if __name__ == "__main__":
    main()
