"""Results in the table's JSON format, one file per experiment, and back.

What has no meaning without an accelerator is null. Added to the table's keys: the likelihood of the reference
answers and the numbers of items behind each figure.
"""

import hashlib
import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from benchmarks.method_comparison.experiment import Experiment
from benchmarks.method_comparison.measure import Outcome
from benchmarks.results import FOLDER as RESULTS
from benchmarks.results import machine

FOLDER = RESULTS / "method_comparison"

_PACKAGES = ("llama-adapter", "transformers", "peft", "datasets", "torch")


def result_of(
    experiment: Experiment, outcome: Outcome, data: Sequence[Path], created_at: str, total_time: float
) -> dict[str, Any]:
    """One result in the table's format.

    Args:
        experiment: what was run.
        outcome: what came out.
        data: the files of problems.
        created_at: when it began, in ISO format.
        total_time: seconds of everything, loading and testing included.
    """
    adapter = experiment.adapter.to_dict() if experiment.adapter is not None else None
    return {
        "run_info": {
            "created_at": created_at,
            "total_time": total_time,
            "experiment_name": experiment.name,
            "peft_branch": f"release {version('peft')}",
            "train_config": asdict(experiment.params),
            "peft_config": adapter,
            "error_msg": "",
        },
        "train_info": {
            "accelerator_memory_reserved_avg": None,
            "accelerator_memory_max": None,
            "accelerator_memory_reserved_99th": None,
            "status": "success",
            **asdict(outcome),
        },
        "meta_info": _meta_info(data),
    }


def _meta_info(data: Sequence[Path]) -> dict[str, Any]:
    """What the figures depend on: data, packages, machine."""
    return {
        "model_info": {"sha": None, "created_at": None},
        "dataset_info": {"gsm8k": {"sha": _digest(data), "created_at": None}},
        "package_info": {f"{name}-version": version(name) for name in _PACKAGES},
        "system_info": {
            "system": platform.system(),
            "release": platform.release(),
            "version": platform.version(),
            "machine": platform.machine(),
            "processor": machine()["processor"],
            "accelerator": f"none, {torch.get_num_threads()} threads",
        },
        "pytorch_info": torch.__config__.show(),
    }


def write(result: dict[str, Any], name: str, folder: Path = FOLDER) -> Path:
    """Write a result.

    Args:
        result: of :func:`result_of`.
        name: of the file.
        folder: where it goes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    text = json.dumps(result, indent=2, default=lambda value: sorted(value))  # PEFT's configs hold sets
    path.write_text(text + "\n", encoding="utf-8")
    return path


def read(folder: Path = FOLDER) -> list[dict[str, Any]]:
    """All results of a folder, by the name of the file."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]


def _digest(paths: Sequence[Path]) -> str:
    """SHA-256 over the files."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()
