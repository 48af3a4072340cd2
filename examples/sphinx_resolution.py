"""What resolution is worth: one picture as 1, 5 and 10 views, and with skip tokens for views of padding.

Command:   python examples/drawn_small_marks.py --output data/one_mark --cards 1 --mark 12 --width 336 \
             --train 4500 --test 300
           python examples/sphinx_resolution.py --domain marks
           python examples/sphinx_resolution.py --domain marks --timing_rounds 3
Hardware:  2 CPU cores and 6 GB of memory, or any GPU
Time:      90 minutes on one core, of which 10 views take 25; several can run beside each other (--arms)
Expected:  runs/resolution/DOMAIN/results.json, a table and a plot: accuracy against tokens and time

The lower layers of SmolLM2-135M are tuned in full, fp32 weights with bf16 compute, on features of
EfficientNet-Lite0 with its real weights. Pictures are wide and their marks small (`drawn_small_marks.py`): a
single view of 112 pixels shows a mark with a third of its pixels. All arms see the same pictures and
questions in as many steps; what differs is the grid, and whether views of padding alone are skipped.
"""

import json
import random
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib
import torch
from efficientnet_lite0 import DEFAULT_FILE, TIMM_NAME, ensure_weights
from jsonargparse import auto_cli
from rich.console import Console
from rich.progress import track
from rich.table import Table
from transformers import AutoModelForCausalLM, AutoTokenizer

from llama_adapter.data import DataConfig, SourceConfig, Turn
from llama_adapter.generation import SamplingConfig
from llama_adapter.generation.config import SessionConfig
from llama_adapter.generation.session import Session
from llama_adapter.models import BaseModelConfig
from llama_adapter.training import TrainConfig, TrainingConfig, train
from llama_adapter.training.groups import GroupConfig
from sphinx_ft import EncoderConfig, SphinxConfig, TokenConfig, ViewConfig
from sphinx_ft.savings import savings
from sphinx_ft.tuning import SphinxTuning

matplotlib.use("Agg")

ARMS = {
    "1 view": (0, False),
    "5 views": (2, False),
    "5 views, skip tokens": (2, True),
    "10 views": (3, False),
    "10 views, skip tokens": (3, True),
}
"""Rows and columns of sub-images, and whether views of padding alone are skipped."""
TIMED_STEPS = 12
"""Of each arm in a round."""
VIEW = 112
"""Side of a view in pixels."""


@dataclass(kw_only=True)
class Study:
    """The settings of the runs."""

    domain: str = "marks"
    """Which pictures: marks, codes, signs."""
    pictures: Path = Path("data/one_mark")
    """What `drawn_small_marks.py` drew."""
    arms: list[str] = field(default_factory=lambda: list(ARMS))
    """Which arms to run."""
    base: str = "models/SmolLM2-135M-Instruct"
    """Folder or hub name of the language model."""
    layers: int = 2
    """How many of its layers are kept, from below: a larger model learns the same, and slower."""
    level: int = 3
    """Stage of the encoder: 3 has 7 x 7 places for a view, each of 16 pixels."""
    grid: int = 7
    """Rows and columns of the common grid."""
    epochs: float = 1.0
    """Passes over the training pictures."""
    rows_per_step: int = 8
    """Pictures in one step; each comes with all questions about it."""
    learning_rate: float = 1e-3
    """Peak rate of the language model."""
    view_rate: float = 3e-3
    """Peak rate of projection and marks."""
    seeds: list[int] = field(default_factory=lambda: [0])
    """Of first weights and order."""
    logging_steps: int = 20
    """Steps between two lines of the log; a run has at least two."""
    timing_rounds: int = 0
    """With more than 0 nothing is trained to its end: the arms take a few steps in turn, so often, and the
    medians replace what the runs noted, during which the machine may have been busy."""
    output_dir: Path = Path("runs/resolution")
    """Models, results and the plot."""


def main(study: Study) -> None:
    """Train and ask every arm, then compare."""
    console = Console()
    ensure_weights(DEFAULT_FILE)
    folder = study.output_dir / study.domain
    folder.mkdir(parents=True, exist_ok=True)
    base = small_base(study)
    dialogs = {split: write_dialogs(study, split) for split in ("train", "test")}
    done = folder / "results.json"
    if study.timing_rounds:
        done.write_text(json.dumps(timed(study, results_in(done), base, dialogs), indent=1) + "\n")
    else:
        run_arms(study, done, base, dialogs)
    results = results_in(done)
    console.print(table_of(results))
    plot(results, folder / "resolution.png")


def run_arms(study: Study, done: Path, base: Path, dialogs: dict[str, Path]) -> None:
    """Add what is not among the results yet."""
    for seed in study.seeds:
        for arm in study.arms:
            if (name := f"{arm}, seed {seed}") not in results_in(done):
                result = run_arm(study, arm, seed, base, dialogs)
                # read again: other arms may run beside this one
                done.write_text(json.dumps({**results_in(done), name: result}, indent=1) + "\n")


def results_in(path: Path) -> dict[str, dict[str, Any]]:
    """What arms have found so far, by arm and seed."""
    return json.loads(path.read_text()) if path.is_file() else {}


def small_base(study: Study) -> Path:
    """The lower layers of the language model, as a folder of its own."""
    folder = study.output_dir / f"base-{study.layers}"
    if not (folder / "config.json").is_file():
        model = AutoModelForCausalLM.from_pretrained(study.base, dtype=torch.float32)
        model.model.layers = model.model.layers[: study.layers]
        model.config.num_hidden_layers = study.layers
        if getattr(model.config, "layer_types", None):
            model.config.layer_types = model.config.layer_types[: study.layers]
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(study.base).save_pretrained(folder)
    return folder


def write_dialogs(study: Study, split: str) -> Path:
    """One record per picture: a conversation with every question about it, in an order of its own."""
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    source = study.pictures / study.domain / f"{split}_vqa.jsonl"
    for line in source.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        rows[row["image"]].append(row)
    target = study.output_dir / study.domain / f"{split}.jsonl"
    chance = random.Random(split)
    with target.open("w", encoding="utf-8") as file:
        for image, asked in rows.items():
            chance.shuffle(asked)
            turns = [
                {"from": who, "value": row[what]}
                for row in asked
                for who, what in (("human", "question"), ("gpt", "answer"))
            ]
            turns[0]["value"] = "<image>\n" + turns[0]["value"]
            record = {"image": str(Path(image).resolve()), "conversations": turns, "asked": asked}
            file.write(json.dumps(record) + "\n")
    return target


def tuning_of(study: Study, arm: str) -> SphinxTuning:
    """The model of an arm."""
    cells, skips = ARMS[arm]
    encoder = EncoderConfig(
        kind="tower",
        view_size=VIEW,
        settings={
            "kind": "timm",
            "name_or_path": TIMM_NAME,
            "weights": str(DEFAULT_FILE),
            "levels": [study.level],
        },
    )
    return SphinxTuning(
        encoders=[encoder],
        views=ViewConfig(image_size=VIEW * max(cells, 1), rows=cells, columns=cells, padding="end"),
        tokens=TokenConfig(grid=study.grid, skip="shared" if skips else "never"),
    )


def run_config(
    study: Study, tuning: SphinxTuning, base: Path, data: list[Path], folder: Path, seed: int = 0
) -> TrainConfig:
    """A training run on files of conversations."""
    return TrainConfig(
        base=BaseModelConfig(name_or_path=str(base)),
        tuning=tuning,
        data=DataConfig(
            train=[SourceConfig(path=str(path), format="llava") for path in data],
            template="sphinx",
            max_length=256,
            feature_cache=str(study.output_dir / "features"),
        ),
        groups=[
            GroupConfig(parts=["view_tokens"], learning_rate=study.view_rate),
            GroupConfig(parts=["language_model"]),
        ],
        training=TrainingConfig(
            output_dir=str(folder),
            overwrite_output_dir=True,
            num_train_epochs=study.epochs,
            per_device_train_batch_size=study.rows_per_step,
            learning_rate=study.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=0.05,
            max_grad_norm=8.0,
            bf16=True,
            save_strategy="no",
            logging_steps=study.logging_steps,
            seed=seed,
        ),
    )


def timed(
    study: Study, results: dict[str, dict[str, Any]], base: Path, dialogs: dict[str, Path]
) -> dict[str, dict[str, Any]]:
    """The results with seconds per step of interleaved runs: their median, and the fastest and slowest."""
    found: dict[str, list[float]] = defaultdict(list)
    for _ in range(study.timing_rounds):
        for arm in study.arms:
            folder = study.output_dir / study.domain / "timing"
            config = run_config(study, tuning_of(study, arm), base, [dialogs["train"]], folder)
            config.training.max_steps, config.training.logging_steps = TIMED_STEPS, 1
            found[arm].append(seconds_per_step(logged(config)))
    for name, result in results.items():
        if times := found.get(name.rpartition(", seed ")[0]):
            result |= {"seconds_per_step": median(times), "fastest_and_slowest": [min(times), max(times)]}
    return results


def run_arm(study: Study, arm: str, seed: int, base: Path, dialogs: dict[str, Path]) -> dict[str, Any]:
    """Train one model and ask it about pictures it has not seen."""
    folder = study.output_dir / study.domain / f"{arm.replace(', ', '-').replace(' ', '_')}-{seed}"
    log = logged(run_config(study, tuning_of(study, arm), base, [dialogs["train"]], folder, seed))
    rows = [json.loads(line) for line in dialogs["test"].read_text().splitlines()]
    sizes = [(row["asked"][0]["width"], row["asked"][0]["height"]) for row in rows]
    saved = SphinxConfig.from_pretrained(str(folder / "model"))
    counted = savings(saved, sizes)
    return {
        "accuracy": ask(folder / "model", rows),
        "tokens_per_image": counted.kept_tokens / counted.images,
        "encoder_gflop_per_image": counted.kept_flops / counted.images / 1e9,
        "seconds_per_step": seconds_per_step(log),
        "steps": max(record["step"] for record in log if "step" in record),
        "loss": [record["loss"] for record in log if "loss" in record][-1],
    }


def logged(config: TrainConfig) -> list[dict[str, Any]]:
    """Train, and read the lines of the log."""
    train(config)
    log = Path(config.training.output_dir, "log.jsonl")
    return [json.loads(line) for line in log.read_text().splitlines()]


def seconds_per_step(log: list[dict[str, Any]]) -> float:
    """The median over the run: the features of all pictures come before it, and other work beside it."""
    marks = [(record["step"], record["time"]) for record in log if "loss" in record]
    return median((end - start) / (to - since) for (since, start), (to, end) in pairwise(marks))


def ask(model: Path, rows: list[dict[str, Any]]) -> dict[str, float]:
    """Share of right answers by kind of question, and over all."""
    session = Session(SessionConfig(base=str(model), dtype="float32"))
    sampling = SamplingConfig(max_new_tokens=6, batch_size=16)
    right: dict[str, list[bool]] = defaultdict(list)
    asked = [(row["image"], one) for row in rows for one in row["asked"]]
    for start in track(range(0, len(asked), 16), "asking", transient=True):
        batch = asked[start : start + 16]
        answers = session.generator().answer(
            [[Turn("user", one["question"])] for _, one in batch],
            sampling,
            images=[image for image, _ in batch],
        )
        for (_, one), answer in zip(batch, answers, strict=True):
            right[one["kind"]].append(answer.strip() == one["answer"])
    shares = {kind: sum(found) / len(found) for kind, found in right.items()}
    whole = [found for of_kind in right.values() for found in of_kind]
    return {**shares, "all": sum(whole) / len(whole)}


def by_arm(results: dict[str, dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Results of all seeds of each arm, in the order of ``ARMS``."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for name, result in results.items():
        found[name.rpartition(", seed ")[0]].append(result)
    return {arm: found[arm] for arm in ARMS if arm in found}


def table_of(results: dict[str, dict[str, Any]]) -> Table:
    """Means over seeds, side by side."""
    kinds = list(next(iter(results.values()))["accuracy"])
    table = Table(
        "arm", *kinds, "tokens per image", "GFLOP of the encoder", "seconds per step", title="Accuracy"
    )
    for arm, runs in by_arm(results).items():
        means = [sum(run["accuracy"][kind] for run in runs) / len(runs) for kind in kinds]
        costs = [
            sum(run[cost] for run in runs) / len(runs)
            for cost in ("tokens_per_image", "encoder_gflop_per_image", "seconds_per_step")
        ]
        table.add_row(arm, *(f"{mean:.1%}" for mean in means), *(f"{cost:.3g}" for cost in costs))
    return table


def plot(results: dict[str, dict[str, Any]], path: Path) -> None:
    """Accuracy against tokens per image and against seconds per step; hollow where views are skipped."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
    for axis, cost, label in (
        (axes[0], "tokens_per_image", "tokens per image"),
        (axes[1], "seconds_per_step", "seconds per step"),
    ):
        for arm, runs in by_arm(results).items():
            cells, skips = ARMS[arm]
            colour = f"C{cells}"
            for run in runs:
                x, y = run[cost], 100 * run["accuracy"]["all"]
                axis.scatter(x, y, s=70, color="none" if skips else colour, edgecolors=colour, linewidths=2)
                near = (0, 9) if skips else (0, -16)
                axis.annotate(arm, (x, y), near, textcoords="offset points", ha="center", fontsize=8)
        axis.set_xlabel(label)
        axis.set_xlim(0, 1.15 * max(run[cost] for run in results.values()))
        axis.set_ylim(0, 112)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("right answers, %")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


if __name__ == "__main__":
    main(auto_cli(Study, as_positional=False))
