"""Runs of one torchrun launch: ``sharded_worker.py FOLDER``; ``plan.json`` there names them.

Rank 0 leaves ``results-N.pt`` there, N being the number of processes.
"""

import json
import os
import sys
import warnings
from pathlib import Path

import torch

from tests.training.fsdp_on_cpu import fsdp_on_cpu
from tests.training.sharded_runs import build, outcome


def main(folder):
    folder, processes = Path(folder), int(os.environ["WORLD_SIZE"])
    results = {}
    for label, run in json.loads((folder / "plan.json").read_text()).items():
        trainer = build(run["model"], folder / label, folder, **run["settings"])
        trainer.train(resume_from_checkpoint=str(folder / run["resume"]) if "resume" in run else None)
        results[label] = outcome(trainer)
        if run.get("save"):
            trainer.save_result(folder / label / "trained")
    if trainer.is_world_process_zero():
        torch.save(results, folder / f"results-{processes}.pt")
    trainer.end()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    with fsdp_on_cpu():
        main(sys.argv[1])
