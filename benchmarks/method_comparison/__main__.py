"""``python -m benchmarks.method_comparison``: the public table in small, on SmolLM2 and GSM8K, on a CPU."""

import argparse
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks.method_comparison.experiment import FOLDER as EXPERIMENTS
from benchmarks.method_comparison.experiment import Experiment, load_experiment
from benchmarks.method_comparison.measure import Problems, measure
from benchmarks.method_comparison.problems import TEST_FILE, TRAIN_FILE, read_problems
from benchmarks.method_comparison.result import FOLDER, read, result_of, write
from benchmarks.method_comparison.table import PAGE, rich_table, write_page
from llama_adapter.demo.base_model import DEFAULT_FOLDER, ensure_base
from llama_adapter.errors import UserError

SMALL = "*/smollm2-*"
"""The experiments that are run without being named."""


def main(arguments: list[str] | None = None) -> int:
    """Run experiments one after the other, then show all results.

    Returns:
        The exit code: 2 for wrong input.
    """
    options = _parser().parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 160)
    try:
        if not options.table:
            _run_all(options, console)
        results = read(options.results)
        page = options.page or (PAGE if options.results == FOLDER else None)
        if page is not None:
            write_page(results, page)
    except UserError as error:
        Console(stderr=True).print(f"Error: {error}", highlight=False, soft_wrap=True)
        return 2
    console.print(rich_table(results))
    return 0


def _parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.method_comparison", description=__doc__)
    parser.add_argument(
        "experiments", nargs="*", type=Path, help="folders METHOD/NAME; all small ones without"
    )
    parser.add_argument("--table", action="store_true", help="run nothing, show the stored results")
    parser.add_argument("--data", type=Path, help=f"folder with {TRAIN_FILE} and {TEST_FILE}")
    parser.add_argument("--base", type=Path, help="base model in place of the experiments' own")
    parser.add_argument("--steps", type=int, help="optimiser steps of each experiment")
    parser.add_argument("--eval-items", type=int, default=64, help="test problems scored by likelihood")
    parser.add_argument("--answer-items", type=int, default=32, help="test problems answered and compared")
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    parser.add_argument("--results", type=Path, default=FOLDER, help="folder of the result files")
    parser.add_argument("--page", type=Path, help="page whose table is renewed; docs/ without --results")
    return parser


def _run_all(options: argparse.Namespace, console: Console) -> None:
    """Run what was named, or every small experiment; without data say so and run nothing."""
    folder = options.data or _shared() / "data" / "gsm8k"
    files = [folder / TRAIN_FILE, folder / TEST_FILE]
    if missing := [str(file) for file in files if not file.is_file()]:
        advice = "Set --data, or LLAMA_ADAPTER_SHARED to the folder that holds data/gsm8k."
        if options.data is not None:
            raise UserError(f"--data is {str(options.data)!r}, without {missing}. {advice}")
        console.print(f"Skipped: there is no {missing[0]}. {advice}", highlight=False, soft_wrap=True)
        return
    for name in ("steps", "eval_items", "answer_items"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} is {value}. Use 1 or more.")
    torch.set_num_threads(options.threads)
    train, test = map(read_problems, files)
    problems = Problems(train=train, test=test[: options.eval_items], asked=test[: options.answer_items])
    model_id = str(options.base) if options.base is not None else None
    folders = options.experiments or sorted(path for path in EXPERIMENTS.glob(SMALL) if path.is_dir())
    for experiment in [load_experiment(path, max_steps=options.steps, model_id=model_id) for path in folders]:
        _run(experiment, problems, files, options.results, console)


def _run(
    experiment: Experiment, problems: Problems, data: list[Path], results: Path, console: Console
) -> None:
    """Run one experiment and write its result."""
    if Path(experiment.params.model_id) == DEFAULT_FOLDER:
        ensure_base()
    console.rule(experiment.name)
    created_at, started = datetime.now(UTC).isoformat(timespec="seconds"), time.perf_counter()
    columns = (TextColumn("answers"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, auto_refresh=False) as progress:
        task = progress.add_task("answers", total=len(problems.asked), visible=False)

        def advance(count: int) -> None:
            progress.update(task, advance=count, visible=True)
            progress.refresh()

        outcome = measure(experiment, problems, advance)
    result = result_of(experiment, outcome, data, created_at, time.perf_counter() - started)
    console.print(f"Wrote {write(result, experiment.file_name, results)}", highlight=False, soft_wrap=True)


def _shared() -> Path:
    """The folder of data that are not in the repository."""
    beside = Path(__file__).resolve().parents[3] / "shared"
    return Path(os.environ.get("LLAMA_ADAPTER_SHARED", beside))


if __name__ == "__main__":
    sys.exit(main())
