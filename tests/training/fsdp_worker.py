"""Full tuning of several models in one launch: ``fsdp_worker.py OUTPUT RUN [RUN ...]``, alone or by torchrun.

Alone nothing is sharded and the process sees the whole batch, in SPLIT parts. A run named ``NAME<FOLDER``
continues from the checkpoint of step 2 that another launch left in FOLDER.
"""

import json
import os
import sys
from pathlib import Path

import torch
from transformers import LlamaForCausalLM, MixtralConfig, MixtralForCausalLM

from llama_adapter.errors import UserError
from llama_adapter.training import Trainer, TrainingConfig
from tests.sphinx_ft.tiny import tiny_model
from tests.training import conftest as parts
from tests.training.sharding import shard_on_cpu

WORLD = int(os.environ.get("WORLD_SIZE", "1"))
SPLIT = int(os.environ.get("SPLIT", "1"))
ROWS = 8
"""Of one optimiser step, over all processes."""


def tied():
    config = parts.make_base().config
    config.tie_word_embeddings = True
    torch.manual_seed(7)
    return LlamaForCausalLM(config)


def mixtral():
    torch.manual_seed(5)
    config = MixtralConfig(
        vocab_size=parts.VOCABULARY,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_local_experts=4,
        num_experts_per_tok=2,
        max_position_embeddings=64,
        pad_token_id=0,
        output_router_logits=True,
        router_aux_loss_coef=0.5,
    )
    return MixtralForCausalLM(config)


def sphinx(mixed_experts=False):
    model = tiny_model(mixtral=mixed_experts)
    model.encoders.requires_grad_(False)
    return model


def pictures(rows, model):
    """Rows of text with pixels of one image behind the first token, but for every third row."""
    torch.manual_seed(len(rows))
    batch = parts.collate(rows)
    side, count = model.config.view_config.image_size, model.config.view_config.count
    seen = [int(row["record_id"].rpartition(":")[2]) % 3 > 0 for row in rows]
    length = model.config.image_lengths([(side, side)])[0]
    space = torch.full((len(rows), length), model.config.image_token_id)
    none = torch.zeros_like(space)
    has = torch.tensor(seen)[:, None]

    def widened(name, image, text):
        parts_of = [batch[name][:, :1], torch.where(has, image, text), batch[name][:, 1:]]
        return torch.cat(parts_of, dim=1)

    generators = [torch.Generator().manual_seed(int(row["record_id"].rpartition(":")[2])) for row in rows]
    pixels = [torch.randn(3, side, side, generator=one) for one in generators]
    chosen = [one for one, sees in zip(pixels, seen, strict=True) if sees]
    shown = {} if not chosen else {
        "pixel_values": torch.stack(chosen),
        "useful_views": torch.ones(len(chosen), count, dtype=torch.bool),
    }  # fmt: skip
    return {
        "input_ids": widened("input_ids", space, none),
        "attention_mask": widened("attention_mask", torch.ones_like(space), none),
        "labels": widened("labels", none - 100, none - 100),
        "record_id": batch["record_id"],
        **shown,
    }


RUNS = {
    "llama": (parts.make_base, {}),
    "tied": (tied, {"checkpointing": "layer"}),
    "bf16": (parts.make_base, {"bf16": True, "gradient_accumulation_steps": 2}),
    "mixtral": (mixtral, {}),
    "sphinx": (sphinx, {}),
    "sphinx_moe": (lambda: sphinx(mixed_experts=True), {}),
    "whole_files": (parts.make_base, {"state_dict_type": "FULL_STATE_DICT"}),
}
"""Name -> model and settings."""


def build(name, output, **others):
    make, settings = RUNS[name]
    settings = {"gradient_accumulation_steps": SPLIT, **settings, **others}
    files = settings.pop("state_dict_type", "SHARDED_STATE_DICT")
    sharded = {"fsdp": True, "fsdp_config": {"version": 2, "state_dict_type": files}} if WORLD > 1 else {}
    model = make()
    return Trainer(
        model=model,
        args=TrainingConfig(
            output_dir=str(output),
            use_cpu=True,
            max_steps=4,
            per_device_train_batch_size=ROWS // WORLD // settings["gradient_accumulation_steps"],
            learning_rate=1e-2,
            logging_steps=1.0,
            save_steps=2.0,
            eval_strategy="steps",
            eval_steps=4.0,
            disable_tqdm=True,
            max_grad_norm=0.5,
            weight_decay=0.1,
            dataloader_drop_last=True,
            **sharded,
            **settings,
        ),
        train_dataset=parts.make_records(40),
        eval_dataset=parts.make_records(7, seed=5, name="eval.jsonl"),
        data_collator=(lambda rows: pictures(rows, model)) if "sphinx" in name else parts.collate,
    )


def local_bytes(trainer):
    """Bytes of trained weights and of the optimiser's state that are in this process."""
    weights = [weight for weight in trainer.model.parameters() if weight.requires_grad]
    states = [
        value
        for state in trainer.optimizer.state.values()
        for value in state.values()
        if torch.is_tensor(value) and value.dim()
    ]
    return [sum(local(one).numel() * one.element_size() for one in found) for found in (weights, states)]


def local(tensor):
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def main(output, names):
    if WORLD > 1:
        shard_on_cpu()
    for name in names:
        run, _, other = name.partition("<")
        folder = output / run.replace("<", "-")
        trainer = build(run, folder)
        checkpoint = str(Path(other) / "checkpoint-2") if other else None
        try:
            trainer.train(resume_from_checkpoint=checkpoint)
        except UserError as error:
            (output / f"{run}.refused").write_text(str(error))
            continue
        trainer.save_result(folder / "model")
        history = trainer.state.log_history
        if trainer.is_world_process_zero():
            found = {
                key: [record[key] for record in history if key in record]
                for key in ("loss", "grad_norm", "eval_loss")
            }
            found["bytes"] = local_bytes(trainer)
            found["kind"] = type(trainer.model).__name__
            (output / f"{run}.json").write_text(json.dumps(found))
        trainer.accelerator.wait_for_everyone()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
