"""The layer of the trainer that makes optimiser and schedule: what decays, at which rate, and when.

Names of parts and their rates come from ``groups``. It does not know batches or losses.
"""

from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from torch.utils.data import DataLoader
from transformers import TrainingArguments
from transformers.trainer_utils import has_length

from llama_adapter.errors import UserError
from llama_adapter.training.decay import published_decay_names
from llama_adapter.training.loading import LoadingTrainer
from llama_adapter.training.schedule import EpochClock, PublishedSchedule, step_factor


class OptimisingTrainer(LoadingTrainer):
    """Makes the optimiser with the groups' rates, and the schedule that the settings name."""

    _batches_per_epoch: int | None = None

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Names of the parameters that decay, by ``weight_decay_rule``."""
        if self.args.weight_decay_rule == "published":
            return published_decay_names(model.named_parameters())
        return super().get_decay_parameter_names(model)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The host's optimiser, in which groups have the learning rates that were given to them."""
        fresh = self.optimizer is None
        optimizer = super().create_optimizer(model)
        if fresh:
            self.groups.set_rates(optimizer)
        return optimizer

    def set_initial_training_values(self, args: TrainingArguments, dataloader: DataLoader) -> tuple[Any, ...]:
        """As the host does; the number of batches is kept for the published schedule."""
        self._batches_per_epoch = len(dataloader) if has_length(dataloader) else None
        return super().set_initial_training_values(args, dataloader)

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> LRScheduler:
        """The learning-rate schedule that ``schedule`` names.

        Raises:
            UserError: When the published schedule, which counts epochs, meets data without a length.
        """
        if self.args.schedule == "transformers" or self.lr_scheduler is not None:
            return super().create_scheduler(num_training_steps, optimizer)
        if not self._batches_per_epoch:
            raise UserError(
                f"schedule={self.args.schedule!r} counts epochs, and streamed training data has no length. "
                "Set schedule=transformers with warmup_steps, or load the data without streaming."
            )
        clock = EpochClock(
            batches_per_epoch=self._batches_per_epoch, accumulation=self.args.gradient_accumulation_steps
        )
        schedule = PublishedSchedule(
            peak=self.args.learning_rate,
            minimum=self.args.min_learning_rate,
            warmup_epochs=self.args.warmup_epochs,
            epochs=clock.epoch(num_training_steps) if self.args.max_steps > 0 else self.args.num_train_epochs,
        )
        chosen = optimizer if optimizer is not None else self.optimizer
        if chosen is None:
            raise UserError(f"The optimizer is {chosen}. Use create_optimizer() before create_scheduler().")
        self.lr_scheduler = LambdaLR(chosen, step_factor(schedule, clock))
        self._created_lr_scheduler = True
        return self.lr_scheduler
