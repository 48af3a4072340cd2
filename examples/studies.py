"""Three small studies on instruction data: methods side by side, zero against random gates, and a sweep.

Command:   python examples/studies.py methods --setup.data alpaca.json
           python examples/studies.py gates --setup.data alpaca.json
           python examples/studies.py sweep --setup.data alpaca.json
Hardware:  2 CPU cores and 6 GB of memory, or any GPU
Time:      10 minutes on one core per setting and seed, with --setup.max_length 256
Result:    a table of answer NLL before and after, results.json and a picture in runs/studies/<study>
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import matplotlib
from jsonargparse import auto_cli
from peft import LoraConfig, PeftConfig
from rich.console import Console
from rich.table import Table

from llama_adapter import ZeroInitConfig
from llama_adapter.data import DataConfig, SourceConfig
from llama_adapter.models import BaseModelConfig
from llama_adapter.training import TrainConfig, TrainingConfig
from llama_adapter.training.run import build_trainer

matplotlib.use("Agg")


@dataclass(kw_only=True)
class Run:
    """One training run of a study."""

    name: str
    group: str
    adapter: PeftConfig
    learning_rate: float
    seed: int = 0


@dataclass(kw_only=True)
class Setup:
    """What all runs of a study share."""

    data: str
    """File of instruction records."""
    base: str = "models/SmolLM2-135M-Instruct"
    """Folder or hub name of the frozen model."""
    dtype: str = "bfloat16"
    """Precision of the base; adapters train in float32."""
    train_rows: str = "0:800"
    """Rows to train on."""
    evaluation_rows: str = "800:"
    """Rows to evaluate on."""
    steps: int = 100
    """Optimiser steps of each run."""
    rows_per_step: int = 4
    """Rows in one step."""
    max_length: int = 512
    """Longest record in tokens; longer ones are dropped."""
    seeds: int = 2
    """Runs per setting; the sweep makes one."""
    output_dir: str = "runs/studies"
    """Where results.json and the pictures go."""


def methods(setup: Setup) -> list[Run]:
    """V1's prompts, V2's bias + scale + norm, and peft's LoRA, each at its own learning rate."""
    v2 = {"prompt_length": 0, "deltas": ["output_scale", "bias"], "norms": True}
    lora = {"r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"]}
    adapters: dict[str, tuple[Callable[[], PeftConfig], float]] = {
        "V1: 10 prompts": (lambda: ZeroInitConfig(task_type="CAUSAL_LM", prompt_init_std=0.3), 1e-2),
        "V2: bias + scale + norm": (lambda: ZeroInitConfig(task_type="CAUSAL_LM", **v2), 1e-3),
        "LoRA r=8 on q, v": (lambda: LoraConfig(task_type="CAUSAL_LM", **lora), 2e-3),
    }
    return [
        Run(name=f"{name}, seed {seed}", group=name, adapter=make(), learning_rate=rate, seed=seed)
        for seed in range(setup.seeds)
        for name, (make, rate) in adapters.items()
    ]


def gates(setup: Setup) -> list[Run]:
    """The paper's ablation: gates that start at zero against gates that start at random."""
    return [
        Run(
            name=f"{name}, seed {seed}",
            group=name,
            adapter=ZeroInitConfig(task_type="CAUSAL_LM", gate_init_std=std),
            learning_rate=1e-2,
            seed=seed,
        )
        for seed in range(setup.seeds)
        for name, std in (("zero gates", 0.0), ("random gates", 1.0))
    ]


def sweep(setup: Setup) -> list[Run]:
    """Learning rate, prompt length, adapted layers and first size of the prompts, each varied on its own."""
    grid = [
        *product((1e-3, 3e-3, 1e-2, 3e-2), (10,), (None,), (1.0,)),
        *product((1e-2,), (1, 30), (None,), (1.0,)),
        *product((1e-2,), (10,), (8, 15), (1.0,)),
        *product((1e-2,), (10,), (None,), (0.3, 0.1)),
        *product((3e-3, 3e-2), (10,), (None,), (0.3,)),
        (3e-2, 10, None, 0.1),
    ]
    return [
        Run(
            name=f"lr {rate:g}, {length} prompts, {layers or 'all'} layers, std {std:g}",
            group=f"{rate:g}/{length}/{layers or 'all'}/{std:g}",
            adapter=ZeroInitConfig(
                task_type="CAUSAL_LM", prompt_length=length, prompt_layers=layers, prompt_init_std=std
            ),
            learning_rate=rate,
        )
        for rate, length, layers, std in grid
    ]


STUDIES = {"methods": methods, "gates": gates, "sweep": sweep}


def main(study: str, setup: Setup) -> None:
    """Train every run of a study on the same rows in the same order, then compare.

    Args:
        study: methods, gates or sweep.
        setup: What its runs share.
    """
    folder = Path(setup.output_dir) / study
    results = []
    for run in STUDIES[study](setup):
        results.append(measure(run, setup, folder / run.name.replace(" ", "-")))
        (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    show(results, study)
    draw(results, folder / "curves.png")


def measure(run: Run, setup: Setup, folder: Path) -> dict:
    """Train once; answer NLL before and after, and the loss curve."""
    trainer = build_trainer(
        TrainConfig(
            base=BaseModelConfig(name_or_path=setup.base, dtype=setup.dtype),
            adapter=run.adapter,
            data=DataConfig(
                train=[SourceConfig(path=setup.data, rows=setup.train_rows)],
                evaluation=[SourceConfig(path=setup.data, rows=setup.evaluation_rows)],
                max_length=setup.max_length,
                overlong="drop",
            ),
            training=training(run, setup, folder),
        )
    )
    trainer.train()
    after = trainer.evaluate()["eval_loss"]
    history = trainer.state.log_history
    before = next((entry["eval_loss"] for entry in history if "eval_loss" in entry), None)
    return {
        "run": run.name,
        "group": run.group,
        "learning_rate": run.learning_rate,
        "seed": run.seed,
        "trainable_parameters": sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
        "answer_nll_before": before,
        "answer_nll_after": after,
        "curve": [(entry["step"], entry["loss"]) for entry in history if "loss" in entry],
    }


def training(run: Run, setup: Setup, folder: Path) -> TrainingConfig:
    """The same optimisation for every run of a study, but for the learning rate and the seed."""
    return TrainingConfig(
        output_dir=str(folder),
        overwrite_output_dir=True,
        learning_rate=run.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=max(1, setup.steps // 10),
        max_steps=setup.steps,
        per_device_train_batch_size=setup.rows_per_step,
        per_device_eval_batch_size=8,
        eval_on_start=True,
        save_strategy="no",
        logging_steps=max(1, setup.steps // 20),
        seed=run.seed,
    )


def show(results: list[dict], study: str) -> None:
    """Print the table."""
    table = Table(
        "run", "lr", "trainable", "NLL before", "NLL after", title=f"{study}: nats per answer token"
    )
    for result in results:
        table.add_row(
            result["run"],
            f"{result['learning_rate']:g}",
            f"{result['trainable_parameters']:,}",
            f"{result['answer_nll_before']:.4f}",
            f"{result['answer_nll_after']:.4f}",
        )
    Console().print(table)


def draw(results: list[dict], path: Path) -> None:
    """Draw the training losses, one colour per group of seeds."""
    from matplotlib import pyplot

    groups = list(dict.fromkeys(result["group"] for result in results))
    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    for result in results:
        first = next(other for other in results if other["group"] == result["group"]) is result
        style = {"color": f"C{groups.index(result['group'])}", "label": result["group"] if first else None}
        axes.plot(*zip(*result["curve"], strict=True), **style)
    axes.set(xlabel="step", ylabel="training loss (nats per answer token)")
    axes.legend()
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    auto_cli(main)
