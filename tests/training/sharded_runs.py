"""Full tuning of tiny models, run by one process or sharded over several; what came out, as plain tensors."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from torch.distributed.tensor import DTensor
from transformers import LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM

from llama_adapter.data.collator import PaddingCollator
from llama_adapter.training import Trainer, TrainingConfig
from sphinx_ft.collator import SphinxCollator
from sphinx_ft.trainable import set_trainable
from tests.sphinx_ft.tiny import picture, tiny_model
from tests.training.conftest import VOCABULARY, adapt, collate, make_records

ROWS = 8
"""Of one optimiser step, over processes and accumulation."""

SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
    "pad_token_id": 0,
}


def llama(**options):
    torch.manual_seed(7)
    return LlamaForCausalLM(LlamaConfig(**SHAPE, **options))


def mixtral():
    torch.manual_seed(7)
    experts = {"num_local_experts": 4, "num_experts_per_tok": 2, "output_router_logits": True}
    return MixtralForCausalLM(MixtralConfig(**SHAPE, **experts, router_aux_loss_coef=0.1))


def sphinx(**options):
    model = tiny_model(**options)
    set_trainable(model, "all_but_encoders")
    return model


MODELS = {
    "adapter": lambda: adapt(llama()),
    "llama": llama,
    "tied": lambda: llama(tie_word_embeddings=True),
    "bf16": llama,
    "mixtral": mixtral,
    "sphinx": sphinx,
    "sphinx_moe": lambda: sphinx(mixtral=True),
}


def picture_rows(folder, count=16):
    """Records of which some have one picture, some two, some none."""
    source = random.Random(3)
    names = []
    for name, size in {"wide": (80, 40), "tall": (20, 60), "square": (50, 50)}.items():
        names.append(str(folder / f"{name}.png"))
        if not (folder / f"{name}.png").exists():
            picture(*size).save(folder / f"{name}.png")
    rows = []
    for index in range(count):
        ids = [1, *(source.randrange(3, 200) for _ in range(source.randint(4, 9)))]
        answer = source.randint(1, 3)
        rows.append(
            {
                "input_ids": ids,
                "labels": [-100] * (len(ids) - answer) + ids[-answer:],
                "media": source.sample(names, index % 3),
                "record_id": f"row {index}",
            }
        )
    return rows


def build(name, folder, media, **settings):
    """The trainer of a case; ``folder`` is the run's, ``media`` holds the pictures."""
    AcceleratorState._reset_state()
    model = MODELS[name]()
    sees = name.startswith("sphinx")
    args = {
        "output_dir": str(folder),
        "max_steps": 4,
        "per_device_train_batch_size": 2,
        "learning_rate": 3e-3,
        "weight_decay": 0.1,
        "warmup_steps": 1.0,
        "lr_scheduler_type": "cosine",
        "max_grad_norm": 8.0 if sees else 1.0,  # both below the norms that occur
        "logging_steps": 1.0,
        "save_strategy": "no",
        "disable_tqdm": True,
        "use_cpu": True,
        "dataloader_drop_last": True,
        "bf16": name == "bf16",
    }
    return Trainer(
        model=model,
        args=TrainingConfig(**{**args, **settings}),
        train_dataset=picture_rows(media) if sees else make_records(16),
        eval_dataset=picture_rows(media, 5) if sees else make_records(7, seed=5, name="eval.jsonl"),
        data_collator=SphinxCollator(PaddingCollator(0), model.config, bos_token_id=1) if sees else collate,
    )


def whole(value):
    return value.full_tensor() if isinstance(value, DTensor) else value


def here(value):
    """The bytes of a tensor that this process holds."""
    local = value.to_local() if isinstance(value, DTensor) else value
    return local.numel() * local.element_size()


def outcome(trainer):
    """Losses, norms and weights of a finished run; what this process held of weights and optimiser."""
    history = trainer.state.log_history
    trained = {
        "losses": [record["loss"] for record in history if "loss" in record],
        "norms": [float(record["grad_norm"]) for record in history if "grad_norm" in record],
        "weights": {
            name.replace("_checkpoint_wrapped_module.", ""): whole(weight.detach()).clone()
            for name, weight in trainer.model.named_parameters()
        },
        "bytes": sum(here(weight) for weight in trainer.model.parameters()),
        "optimizer_bytes": sum(
            here(value)
            for state in trainer.optimizer.state.values()
            for value in state.values()
            if isinstance(value, torch.Tensor) and value.dim() > 0
        ),
    }
    return trained | {"evaluation": trainer.evaluate()["eval_loss"]}


def one_process(name, folder, accumulation, resume=None, save=False, **settings):
    """The run of this process alone, with the same rows in each step; arguments as in ``planned``."""
    rows = {"per_device_train_batch_size": ROWS // accumulation, "gradient_accumulation_steps": accumulation}
    trainer = build(name, folder / f"{name}-alone", folder, **(rows | settings))
    trainer.train(resume_from_checkpoint=None if resume is None else str(folder / resume))
    if save:
        trainer.save_result(folder / f"{name}-alone" / "trained")
    return outcome(trainer)


def launch(processes, folder, plan):
    """Run a plan by torchrun; what came out of each of its runs."""
    (folder / "plan.json").write_text(json.dumps(plan))
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={processes}",
    ]
    worker = Path(__file__).with_name("sharded_worker.py")
    paths = [str(worker.parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [*torchrun, str(worker), str(folder)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)},
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-6000:])
    return torch.load(folder / f"results-{processes}.pt", weights_only=True)


def planned(name, processes, accumulation=2, resume=None, save=False, **settings):
    """A run of a plan, sharded by FSDP or, with its settings, by DeepSpeed.

    ``resume`` is a checkpoint's path in the folder, ``save`` also keeps the result.
    """
    rows = ROWS // (processes * accumulation)
    layout = {"per_device_train_batch_size": rows, "gradient_accumulation_steps": accumulation}
    layout |= {} if "deepspeed" in settings else {"fsdp": True}
    run = {"model": name, "settings": {**layout, **settings}, "save": save}
    return run if resume is None else run | {"resume": resume}


def assert_equal(run, other):
    """Two runs gave the same, up to fp32 sums in another order; one may have begun later."""
    for what in ("losses", "norms"):
        last = min(len(run[what]), len(other[what]))
        assert run[what][-last:] == pytest.approx(other[what][-last:], rel=1e-5)
    assert run["evaluation"] == pytest.approx(other["evaluation"], rel=1e-5)
    assert run["weights"].keys() == other["weights"].keys()
    for name, weight in run["weights"].items():
        torch.testing.assert_close(weight, other["weights"][name], rtol=1e-5, atol=1e-5)
