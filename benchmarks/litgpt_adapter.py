"""A training step beside litgpt's adapter: each in its own environment, its own process, its own loop.

The two cannot share an environment (litgpt 0.5.13 wants jsonargparse up to 4.41 and huggingface-hub
below 1.4; this project and transformers want later ones), so processes take turns instead of steps: a
round is a fresh process of each, in changing order, and gives a ratio of their median steps. The other
environment's Python is named by ``LLAMA_ADAPTER_LITGPT``. Besides time, what training reaches is
counted: litgpt keeps the prompts' keys and values of its first validation (its issue 1287).
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.ratios import bootstrap
from benchmarks.results import Row
from llama_adapter.demo.base_model import DEFAULT_FOLDER, ensure_base
from llama_adapter.errors import UserError

VARIABLE = "LLAMA_ADAPTER_LITGPT"
ROWS, TOKENS = 4, 128
OWN, SHIPPED, CLEARED = "own", "litgpt adapter", "litgpt adapter, cache cleared before each step"
_ROOT = Path(__file__).parent.parent


def run(
    minimum: int = 7,
    maximum: int = 7,
    folder: Path = DEFAULT_FOLDER,
    steps: int = 7,
    more: Sequence[str] = (),
    python: str | None = None,
) -> list[Row]:
    """Time rounds of processes, and count what the training reaches.

    Args:
        minimum: rounds; no target asks for more.
        maximum: rounds at most.
        folder: the base model; litgpt takes its tokenizer only.
        steps: timed in each process, after one that is not.
        more: further options of both programs.
        python: of the environment with litgpt; by default the variable's.

    Raises:
        UserError: There is no such environment, or a program failed in it.
    """
    theirs = python or os.environ.get(VARIABLE)
    if not theirs:
        raise UserError(
            f"{VARIABLE} is not set. Set it to the Python of an environment with litgpt: "
            "python -m venv litgpt-env; litgpt-env/bin/pip install litgpt."
        )
    if folder == DEFAULT_FOLDER:
        ensure_base(folder)
    options = ["--base", str(folder.resolve()), "--steps", str(steps), *more]
    programs = {
        OWN: [sys.executable, "-m", "benchmarks.method_comparison.own_step", *options],
        SHIPPED: [theirs, "-m", "benchmarks.method_comparison.litgpt_step", *options],
    }
    programs[CLEARED] = [*programs[SHIPPED], "--clear-cache"]
    rounds = [_round(programs, number) for number in range(min(minimum, maximum))]
    fresh = execute([*programs[SHIPPED], "--no-validation"])
    return [*(_speed(name, rounds) for name in (SHIPPED, CLEARED)), _reach(rounds[0], fresh)]


def execute(command: Sequence[str]) -> dict[str, Any]:
    """Run one program in a fresh process and read what it found.

    Args:
        command: the program with its options; where to write is added.

    Raises:
        UserError: It failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "figures.json"
        words = ["--rows", str(ROWS), "--tokens", str(TOKENS), "--threads", str(torch.get_num_threads())]
        done = subprocess.run(
            [command[0], *command[1:3], *words, *command[3:], "--output", str(output)],
            cwd=_ROOT,
            env=os.environ | {"PYTHONPATH": str(_ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode or not output.is_file():
            raise UserError(
                f"{' '.join(command[:3])} ended with {done.returncode}: {done.stderr.strip()[-300:]!r}. "
                f"Set {VARIABLE} to the Python of an environment in which it runs."
            )
        content: dict[str, Any] = json.loads(output.read_text(encoding="utf-8"))
        return content


def _round(programs: dict[str, list[str]], number: int) -> dict[str, dict[str, Any]]:
    """One process of each, starting with another one each time."""
    names = list(programs)
    order = names[number % len(names) :] + names[: number % len(names)]
    return {name: execute(programs[name]) for name in order}


def _speed(name: str, rounds: Sequence[dict[str, dict[str, Any]]]) -> Row:
    """How much faster our steps are than those of one program."""
    medians = [{key: float(np.median(found["seconds"])) for key, found in one.items()} for one in rounds]
    ratio = bootstrap([one[name] / one[OWN] for one in medians])
    return Row(
        measure="training step, each in its own loop and process: times faster",
        against=name,
        value=ratio.median,
        low=ratio.low,
        high=ratio.high,
        pairs=ratio.pairs,
        facts={
            "seconds": float(np.median([one[OWN] for one in medians])),
            "seconds of the other": float(np.median([one[name] for one in medians])),
            "batch": f"{ROWS} x {TOKENS}",
            "its environment": _versions(rounds[0][name]),
        },
    )


def _reach(found: dict[str, dict[str, Any]], fresh: dict[str, Any]) -> Row:
    """Which share of litgpt's prompts its training changes, and what happens without a validation first."""
    shipped, own = found[SHIPPED], found[OWN]
    share = shipped["moved"]["prompts"] / shipped["tensors"]["prompts"]
    return Row(
        measure="prompt tensors that the training changes, after a validation: share",
        against=SHIPPED,
        value=share,
        low=share,
        high=share,
        pairs=1,
        facts={
            "ours": f"{own['moved']['prompts']} of {own['tensors']['prompts']}",
            "its gates": f"{shipped['moved']['gates']} of {shipped['tensors']['gates']}",
            "its prompts with a gradient": shipped["with gradient"]["prompts"],
            "without a validation first": fresh["error"] or "no error",
            "its environment": _versions(shipped),
        },
    )


def _versions(found: dict[str, Any]) -> str:
    """What a program ran with."""
    return " ".join(f"{name} {number}" for name, number in found["versions"].items())
