"""FLOPs of a run, step by step, beside what is planned for it."""

from dataclasses import fields

from torch.utils.flop_counter import FlopCounterMode
from transformers import TrainerCallback

from llama_adapter.planning import PlanConfig, estimate
from llama_adapter.planning.step import FLOP_FORMULAS
from llama_adapter.training import TrainConfig, build_trainer


class Counting(TrainerCallback):
    """FLOPs of every step but the first, which also tries the model out."""

    def __init__(self):
        self.steps = []

    def on_step_begin(self, args, state, control, **kwargs):
        self.counter = FlopCounterMode(display=False, custom_mapping=FLOP_FORMULAS)
        self.counter.__enter__()

    def on_step_end(self, args, state, control, **kwargs):
        self.counter.__exit__(None, None, None)
        self.steps.append(self.counter.get_total_flops())


def planned(config):
    """What the planner says of a run, for this machine."""
    settings = {field.name: getattr(config, field.name) for field in fields(TrainConfig)}
    return estimate(PlanConfig(**settings, compare=False, gpu="a100-80gb"))


def trained(config, sums):
    """FLOPs of a run's steps and the sums of their batches, found by ``sums``; without the first step."""
    counting, batches = Counting(), []
    trainer = build_trainer(config)
    trainer.add_callback(counting)
    loss = trainer.compute_loss
    trainer.compute_loss = lambda model, batch, *rest, **more: (
        batches.append(sums(batch)),
        loss(model, batch, *rest, **more),
    )[1]
    trainer.train()
    return counting.steps[1:], batches[1:]
