"""Runs with images in one torchrun launch: ``ddp_images_worker.py BASE ROOT``; rank 0 leaves the results."""

import sys
from pathlib import Path

import torch
from accelerate.utils import gather_object

from llama_adapter.training import build_trainer
from tests.training.image_runs import DDP_RUNS, ddp_config


def run(base, root, name):
    """Losses, gradient norms and weights; and which rank saw an image in which micro-batch."""
    trainer = build_trainer(ddp_config(root, base, name, "two", ranks=2))
    seen = []
    inner = trainer.compute_loss

    def compute_loss(model, inputs, *args, **kwargs):
        seen.append("features" in inputs or "pixel_values" in inputs)
        return inner(model, inputs, *args, **kwargs)

    trainer.compute_loss = compute_loss
    trainer.train()
    history = [record for record in trainer.state.log_history if "loss" in record]
    return {
        "losses": [record["loss"] for record in history],
        "norms": [record["grad_norm"] for record in history],
        "weights": {
            n: p.detach().clone() for n, p in trainer.unwrapped.named_parameters() if p.requires_grad
        },
        "seen": gather_object([seen]),
    }


def main(base, root):
    """All runs."""
    results = {name: run(base, Path(root), name) for name in DDP_RUNS}
    if torch.distributed.get_rank() == 0:
        torch.save(results, f"{root}/results.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
