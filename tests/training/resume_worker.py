"""A training process that is killed: ``resume_worker.py BASE OUTPUT KILL_STEP KILL_MOMENT`` (moment: substep
or save)."""

import importlib.util
import os
import signal
import sys
from pathlib import Path

from transformers import LlamaForCausalLM, TrainerCallback

from llama_adapter.training import Trainer, TrainingConfig, checkpoint


def load_parts():
    """The conftest beside this file, as a module."""
    spec = importlib.util.spec_from_file_location("parts", Path(__file__).with_name("conftest.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


class KillInStep(TrainerCallback):
    """Kills the process between two micro-batches of a step."""

    def __init__(self, step):
        self.step = step

    def on_substep_end(self, args, state, control, **kwargs):
        if state.global_step + 1 == self.step:
            kill()


def kill_while_saving(step):
    """Kills the process when the files of a checkpoint are written, but its manifest is not."""
    publish = checkpoint.publish

    def dying(written, final, notes):
        if final.name == f"checkpoint-{step}":
            kill()
        publish(written, final, notes)

    checkpoint.publish = dying


def main(base, output, step, moment):
    parts = load_parts()
    trainer = Trainer(
        model=parts.adapt(LlamaForCausalLM.from_pretrained(base), dropout=0.3),
        args=TrainingConfig(**parts.resumable_settings(output)),
        train_dataset=parts.make_records(15),
        data_collator=parts.collate,
    )
    if moment == "save":
        kill_while_saving(step)
    else:
        trainer.add_callback(KillInStep(step))
    trainer.train()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
