"""ScienceQA with pictures, in small: adapters that see and that do not, zero and random gates.

Command:   python examples/scienceqa_study.py --problems test_img.jsonl
           python examples/scienceqa_study.py --problems test_img.jsonl --arms '[text, image]' --seeds 1
Hardware:  2 CPU cores and 6 GB of memory, or any GPU
Time:      see docs/reproduction.md; started again, it goes on behind the last finished run
Expected:  runs/scienceqa/results.jsonl, a line per arm, fold and seed; a table of accuracies

A small version of Tables 2 and 5 of the LLaMA-Adapter paper (arXiv 2303.16199). The questions are put into
five folds by a hash of their id; a fold is held out, the others train. So the figures are no scores of
ScienceQA's test split. Many questions come twice with the same words; "new" counts those whose words no
training question has. The prompt is CQM-A's; the answer that is trained is the option's text, since a model
of this size does not learn which letter stands for what. The encoder has ImageNet's weights.
"""

import hashlib
import json
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

from efficientnet_lite0 import DEFAULT_FILE, TIMM_NAME, ensure_weights
from jsonargparse import auto_cli
from rich.console import Console
from rich.table import Table

from llama_adapter import ZeroInitConfig
from llama_adapter.conditioning import VisualQueriesConfig
from llama_adapter.data import DataConfig, SourceConfig
from llama_adapter.data.identity import json_digest
from llama_adapter.errors import UserError
from llama_adapter.evaluation.answering import evaluate_model
from llama_adapter.evaluation.scienceqa.problems import read_problems
from llama_adapter.evaluation.scienceqa.task import ScienceQA, ScienceQAConfig
from llama_adapter.models import BaseModelConfig
from llama_adapter.scienceqa import OptionForm, Problem, build_candidates, build_prompt
from llama_adapter.training import TrainConfig, TrainingConfig, train
from llama_adapter.training.checkpoint import defect
from llama_adapter.training.groups import GroupConfig
from llama_adapter.vision import VisionConfig

FOLDS = 5
FORMAT = "CQM-A"
BESIDE_PROMPTS = {"v2": ["norm", "bias", "output_scale"]}
"""Preset -> what trains beside prompts and gates."""


@dataclass(kw_only=True)
class Arm:
    """One row of the table."""

    trains: bool = True
    """Whether anything is trained."""
    sees: bool = False
    """Whether pictures are shown."""
    gates: float = 0.0
    """Standard deviation of the gates at the start."""


ARMS = {
    "untouched": Arm(trains=False),
    "text": Arm(),
    "image": Arm(sees=True),
    "text, random gates": Arm(gates=1.0),
    "image, random gates": Arm(sees=True, gates=1.0),
}


@dataclass(kw_only=True)
class Study:
    """What all runs share."""

    problems: str
    """Questions with pictures, as `evaluate scienceqa` reads them."""
    images: str | None = None
    """Folder of the pictures; by default beside the questions."""
    base: str = "models/SmolLM2-135M-Instruct"
    """Folder or hub name of the frozen model."""
    weights: Path = DEFAULT_FILE
    """The encoder's weights; made from the installed package where missing."""
    arms: list[str] = field(default_factory=lambda: list(ARMS))
    """Which arms."""
    folds: list[int] = field(default_factory=lambda: [0])
    """Which folds are held out, one after the other, from 0 to 4."""
    seeds: int = 3
    """Runs per arm and fold; the untouched model has one."""
    epochs: float = 2.0
    """Passes over the training questions."""
    max_length: int = 80
    """Longest training question in tokens; longer ones are left out of training, never of the test."""
    tokens_per_batch: int = 1024
    """Most tokens of one step."""
    dtype: str = "float32"
    """Precision of the frozen model; bfloat16 where the machine multiplies in it."""
    prompt_rate: float = 8e-3
    """Peak rate of the prompts."""
    gate_rate: float = 2e-2
    """Peak rate of the gates, which have one number per head and start at zero."""
    learning_rate: float = 1e-3
    """Peak rate of the conditioner."""
    beside_rate: float = 2e-3
    """Peak rate of what the preset trains beside prompts."""
    initial_scale: float = 0.2
    """Size of what the conditioner adds to the prompts at the start."""
    prompt_length: int = 10
    """Prompts per layer."""
    prompt_layers: int = 8
    """Adapted layers, counted from the top; those below run once, their output is kept."""
    preset: Literal["v1", "v2"] = "v2"
    """What is trained of the language model: prompts and gates, or also norms, biases and scales."""
    answers: OptionForm = "text"
    """What stands for an option in answers: its text, or its letter."""
    width: int = 192
    """Width of the conditioner's blocks."""
    score: Literal["generated", "likelihood", "both"] = "generated"
    """What is scored: the answers that are written, the likelihood of each option, or both; the second takes
    about three times as long as the first."""
    limit: int | None = None
    """Only so many training and so many held-out questions, to try things out."""
    output_dir: Path = Path("runs/scienceqa")
    """Results, adapters and the features."""

    def __post_init__(self) -> None:
        for name, given, known in (("arms", self.arms, ARMS), ("folds", self.folds, range(FOLDS))):
            if wrong := [one for one in given if one not in known]:
                raise UserError(f"{name} names {wrong[0]!r}. Use some of {list(known)}.")


@dataclass(frozen=True)
class Fold:
    """Training and held-out questions of one split, as files and in memory."""

    number: int
    training: list[Problem]
    held_out: list[Problem]
    folder: Path

    @property
    def repeated(self) -> set[str]:
        """Ids of held-out questions that training asks in the same words."""
        asked = {_words(problem) for problem in self.training}
        return {problem.id for problem in self.held_out if _words(problem) in asked}


def main(study: Study) -> None:
    """Run what is not done yet, and show all that is."""
    problems = read_problems([study.problems], "test", images=study.images)
    ensure_weights(study.weights)
    results = study.output_dir / "results.jsonl"
    done = {row["key"] for row in read_results(results)}
    console = Console()
    runs = [
        (number, seed, arm)
        for number in study.folds
        for seed in range(study.seeds)
        for arm in study.arms
        if seed == 0 or ARMS[arm].trains
    ]
    for place, (number, seed, arm) in enumerate(runs, start=1):
        key = json.dumps([arm, number, seed, settings(study)], sort_keys=True, default=str)
        if key in done:
            continue
        console.rule(f"{place} of {len(runs)}: {arm}, fold {number}, seed {seed}")
        fold = make_fold(problems, number, study)
        row = {
            "key": key,
            "arm": arm,
            "fold": number,
            "seed": seed,
            **measure(arm, seed, fold, study, console),
        }
        with results.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(row) + "\n")
    show(read_results(results), console)


def settings(study: Study) -> dict[str, Any]:
    """What decides a run besides arm, fold and seed."""
    names = (
        "base",
        "epochs",
        "dtype",
        "tokens_per_batch",
        "prompt_rate",
        "gate_rate",
        "learning_rate",
        "beside_rate",
        "initial_scale",
        "prompt_length",
        "prompt_layers",
        "preset",
        "answers",
        "width",
        "max_length",
        "score",
        "limit",
    )
    return {name: getattr(study, name) for name in names}


def fold_of(pid: str) -> int:
    """The fold of a question, the same on every machine."""
    return hashlib.sha256(pid.encode()).digest()[0] % FOLDS


def make_fold(problems: Sequence[Problem], number: int, study: Study) -> Fold:
    """Write the training records and the held-out questions of a split."""
    training = [problem for problem in problems if fold_of(problem.id) != number][: study.limit]
    held_out = [problem for problem in problems if fold_of(problem.id) == number][: study.limit]
    folder = study.output_dir / f"fold-{number}"
    folder.mkdir(parents=True, exist_ok=True)
    records = [
        {
            "prompt": build_prompt(problem, FORMAT),
            "completion": build_candidates(problem, FORMAT, study.answers)[problem.answer],
            "image": problem.image,
        }
        for problem in training
    ]
    _write(folder / "train.jsonl", records)
    _write(folder / "held_out.jsonl", [{**asdict(problem), "pid": problem.id} for problem in held_out])
    return Fold(number, training, held_out, folder)


def measure(arm: str, seed: int, fold: Fold, study: Study, console: Console) -> dict[str, Any]:
    """Train, unless the arm is the untouched model, and ask the held-out questions."""
    options, started = ARMS[arm], perf_counter()
    digest = json_digest(settings(study) | {"score": None})[
        :8
    ]  # what is scored does not change what is trained
    folder = fold.folder / f"{arm.replace(', ', '-').replace(' ', '-')}-{seed}-{digest}"
    if options.trains and defect(folder / "adapter") is not None:
        train(training_run(options, seed, fold, study, folder))
    trained = perf_counter()
    config = ScienceQAConfig(
        problems=[str(fold.folder / "held_out.jsonl")],
        base=study.base,
        adapter=[str(folder / "adapter")] if options.trains else [],
        dtype=study.dtype,
        format=FORMAT,
        score=study.score,
        options_as=study.answers,
        max_new_tokens=32,
        batch_size=16,
        ignore_images=not options.sees,
        feature_cache=str(study.output_dir / "features"),
    )
    tables = evaluate_model(ScienceQA(config), config, console)
    found = {name: accuracies(scores.items, fold.repeated) for name, scores in tables.items()}
    times = {"train_seconds": trained - started, "evaluate_seconds": perf_counter() - trained}
    return {"accuracy": found, "questions": len(fold.held_out), "repeated": len(fold.repeated), **times}


def accuracies(items: Sequence[dict[str, Any]], repeated: set[str]) -> dict[str, float | None]:
    """Shares of right answers among all questions, and among those with words of their own."""
    new = [item["correct"] for item in items if item["id"] not in repeated]
    return {
        "all": statistics.mean(item["correct"] for item in items),
        "new": statistics.mean(new) if new else None,
    }


def training_run(arm: Arm, seed: int, fold: Fold, study: Study, folder: Path) -> TrainConfig:
    """The run of one arm; all differ in what the arm says, nothing else."""
    return TrainConfig(
        base=BaseModelConfig(name_or_path=study.base, dtype=study.dtype),
        adapter=ZeroInitConfig(
            task_type="CAUSAL_LM",
            preset=study.preset,
            prompt_length=study.prompt_length,
            prompt_layers=study.prompt_layers,
            delta_layers=study.prompt_layers if study.preset in BESIDE_PROMPTS else None,
            prompt_init_std=0.3,
            gate_init_std=arm.gates,
        ),
        data=DataConfig(
            train=[SourceConfig(path=str(fold.folder / "train.jsonl"))],
            max_length=study.max_length,
            overlong="drop",
            media="refuse" if arm.sees else "ignore",
            feature_cache=str(study.output_dir / "features"),
        ),
        groups=[
            GroupConfig(parts=["prompt"], learning_rate=study.prompt_rate),
            GroupConfig(parts=["gate"], learning_rate=study.gate_rate),
            *([GroupConfig(parts=["conditioner"])] if arm.sees else []),
            *(
                [GroupConfig(parts=BESIDE_PROMPTS[study.preset], learning_rate=study.beside_rate)]
                if study.preset in BESIDE_PROMPTS
                else []
            ),
        ],
        training=TrainingConfig(
            output_dir=str(folder),
            overwrite_output_dir=True,
            learning_rate=study.learning_rate,
            weight_decay=0.02,
            lr_scheduler_type="cosine",
            warmup_steps=0.1,
            num_train_epochs=study.epochs,
            batching="tokens",
            tokens_per_batch=study.tokens_per_batch,
            save_strategy="no",
            logging_steps=20,
            seed=seed,
        ),
        **(sight(study) if arm.sees else {}),
    )


def sight(study: Study) -> dict[str, Any]:
    """What a run that sees has besides."""
    return {
        "vision": encoder(study),
        "conditioner": VisualQueriesConfig(
            width=study.width,
            depth=2,
            num_heads=study.width // 32,
            mlp_width=4 * study.width,
            initial_scale=study.initial_scale,
        ),
    }


def encoder(study: Study) -> VisionConfig:
    """The frozen encoder: 7 x 7 tokens of width 1280."""
    return VisionConfig(kind="timm", name_or_path=TIMM_NAME, weights=str(study.weights))


def read_results(path: Path) -> list[dict[str, Any]]:
    """What was found so far; a line that was cut off is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def show(rows: Sequence[dict[str, Any]], console: Console) -> None:
    """Print mean and standard deviation over folds and seeds, for each arm and set of settings."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        arm, _, _, options = json.loads(row["key"])
        groups[arm, json.dumps(options)].append(row["accuracy"])
    measures = [(name, part) for name in ("written", "likelihood") for part in ("all", "new")]
    table = Table(
        "arm", "runs", *(" ".join(names) for names in measures), title="accuracy on held-out questions, %"
    )
    for (arm, _), found in groups.items():
        table.add_row(
            arm,
            str(len(found)),
            *(spread([one.get(name, {}).get(part) for one in found]) for name, part in measures),
        )
    console.print(table)


def spread(values: Sequence[float | None]) -> str:
    """Mean and standard deviation of shares, in per cent."""
    known = [100 * value for value in values if value is not None]
    if not known:
        return "-"
    deviation = f" ± {statistics.stdev(known):.1f}" if len(known) > 1 else ""
    return f"{statistics.mean(known):.1f}{deviation}"


def _words(problem: Problem) -> str:
    """A question's words and options, to find those that come twice."""
    return json.dumps([problem.question, problem.hint, sorted(problem.choices)])


def _write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main(auto_cli(Study, as_positional=False))
