"""Several runs in one torchrun launch: ``ddp_worker.py BASE OUTPUT``; rank 0 leaves ``results.pt``, every
rank its output."""

import importlib.util
import sys
from pathlib import Path

import torch
from transformers import LlamaForCausalLM

from llama_adapter.errors import UserError
from llama_adapter.training import Trainer, TrainingConfig


def load_parts():
    """The conftest beside this file, as a module."""
    spec = importlib.util.spec_from_file_location("parts", Path(__file__).with_name("conftest.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build(parts, base, output, records=16, **settings):
    return Trainer(
        model=parts.adapt(LlamaForCausalLM.from_pretrained(base)),
        args=TrainingConfig(**{**parts.ddp_settings(output), **settings}),
        train_dataset=parts.make_records(records),
        eval_dataset=parts.make_records(7, seed=5, name="eval.jsonl"),
        data_collator=parts.collate,
    )


def outcome(trainer):
    history = trainer.state.log_history
    return {
        "losses": [record["loss"] for record in history if "loss" in record],
        "evaluations": [record["eval_loss"] for record in history if "eval_loss" in record],
        "eval_tokens": [record["eval_tokens"] for record in history if "eval_tokens" in record],
        "tokens": trainer.meter.total.tokens,
        "weights": {
            name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad
        },
    }


def main(base, output):
    parts = load_parts()
    results = {}
    for name, settings in parts.DDP_RUNS.items():
        trainer = build(parts, base, f"{output}/{name}", per_device_train_batch_size=2, **settings)
        trainer.train()
        results[name] = outcome(trainer)
    resumed = build(parts, base, f"{output}/token", per_device_train_batch_size=2)
    resumed.train(resume_from_checkpoint=f"{output}/token/checkpoint-2")
    results["resumed"] = outcome(resumed)
    results["device"] = str(resumed.args.device)
    try:
        build(parts, base, f"{output}/fsdp", fsdp="full_shard")
    except UserError as error:
        results["fsdp"] = str(error)
    resumed.console.print("only rank 0 prints")
    if resumed.is_world_process_zero():
        torch.save(results, f"{output}/results.pt")
    resumed.end()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
