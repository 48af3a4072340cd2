"""Settings of a training run: transformers' ``TrainingArguments`` and the few that this field adds.

What is unusual: creating a :class:`TrainingConfig` already finds the device (and joins the process group
under torchrun), because ``TrainingArguments`` does; so it is created once, when a run starts, never to read
defaults or help texts. A preset only fills settings that were left at their default. The config does not know
the model or the data.
"""

from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, Literal

from transformers import TrainingArguments

from llama_adapter.errors import UserError
from llama_adapter.limits import Count, Limit, Positive, Rate, at_least
from llama_adapter.training.activation_memory import CheckpointingPolicy
from llama_adapter.training.batch_choice import Batching, check_batching
from llama_adapter.training.contradictions import METRICS, check_packages, check_together, try_optimizer
from llama_adapter.training.fsdp_settings import settle_fsdp
from llama_adapter.training.labelled_loss import LossKernel
from llama_adapter.training.presets import PRESETS, PresetName, accumulation_for, scaled_learning_rate
from llama_adapter.training.ranges import HOST_LIMITS
from llama_adapter.training.requested import check_checkpointing, check_processes, check_settings
from llama_adapter.values import check_ranges


@dataclass(kw_only=True)
class TrainingConfig(TrainingArguments):
    """All fields of ``transformers.TrainingArguments``, other defaults for some, and these.

    Raises:
        UserError: When settings contradict each other or ask for what this machine does not have.
    """

    LIMITS: ClassVar[dict[str, Limit]] = HOST_LIMITS
    """Of the fields that are not declared here."""

    output_dir: str | None = "runs/train"
    """Folder for checkpoints, ``log.jsonl`` and the final adapter (``adapter/``)."""

    preset: PresetName | None = None
    """Published hyper-parameters for every setting left at its default: ``v1`` (LLaMA-Adapter),
    ``v1_scienceqa``, ``v2_pretrain`` (stage on image-text pairs) or ``v2`` (instruction stage);
    ``sphinx_pretrain``, ``sphinx`` (its two stages) or ``sphinx_x``, which train whole models."""

    learning_rate: float = 1e-3
    """Peak learning rate. Adapters want more than full fine-tuning: 1e-3 at 7B, up to 5e-3 for models of
    0.1B."""

    base_learning_rate: Positive | None = None
    """Peak rate per 256 rows of one optimiser step; replaces ``learning_rate``, and the rate used
    is printed."""

    schedule: Literal["transformers", "published"] = "transformers"
    """``transformers``: ``lr_scheduler_type`` and ``warmup_steps``. ``published``: linear warm-up, then
    cosine, set per step."""

    warmup_epochs: Rate = 0.0
    """Warm-up of the published schedule in (fractional) epochs."""

    min_learning_rate: Rate = 0.0
    """Where the cosine of the published schedule ends."""

    loss_reduction: Literal["token", "published"] = "token"
    """``token``: mean over the labelled tokens of the whole optimiser step, over accumulation and ranks.
    ``published``: mean per device batch, then over accumulation and ranks, as the published code does."""

    loss_kernel: LossKernel = "auto"
    """How the loss is computed. ``chunked``: logits of some labelled tokens at a time. ``torch``: by
    ``torch.nn.functional.linear_cross_entropy``. ``narrowed``: logits of all labelled tokens at once.
    ``auto``: ``chunked``."""

    loss_chunk_rows: Count | None = None
    """Labelled tokens whose logits are there at once; None takes the measured default."""

    fsdp: bool | str | None = None  # type: ignore[assignment]  # the host takes true as well
    """true: shard weights, gradients and optimiser states over the processes of torchrun, with FSDP2.
    ``fsdp_config`` says how: see docs/full-tuning.md."""

    checkpointing: CheckpointingPolicy = "auto"
    """What is computed again in the backward pass instead of kept. ``selective``: outputs of the MLPs'
    activation functions. ``mlp``: the MLPs. ``layer``: layers, as ``activation_checkpointing`` does.
    ``none``: nothing. ``auto``: ``selective``, which takes no longer, where the model has such functions and
    neither ``activation_checkpointing`` nor ``torch_compile`` is on."""

    checkpointing_every: Count = 1
    """Checkpoint only one of this many layers."""

    weight_decay_rule: Literal["published", "transformers"] = "published"
    """Which tensors ``weight_decay`` touches. ``published``: those with two or more dimensions (prompts,
    gates, LoRA). ``transformers``: all but biases and norms, so scales too."""

    batching: Batching = "rows"
    """How rows become batches. ``rows``: ``per_device_train_batch_size`` random rows. ``tokens``: rows of
    like length, as many as fit into ``tokens_per_batch``. ``packed``: records one after the other in one row
    of that many tokens, without padding and without seeing each other."""

    tokens_per_batch: Annotated[int, at_least(2)] | None = None
    """Most tokens of one device batch with ``batching`` ``tokens`` or ``packed``, padding included. Left out:
    as many as ``per_device_train_batch_size`` rows of mean length have, but at least the longest row."""

    types: Literal["mixed", "apart", "published"] = "mixed"
    """Whether records of several types (``data.train``: ``type``, ``task``) share optimiser steps. ``apart``:
    each step holds one type. ``published``: likewise, of like length, in the order of LLaMA2-Accessory, which
    leaves out the longest records of a type that fill no step."""

    epoch_parts: Count = 1
    """Into how many epochs one pass over the data is divided. The published V2 stage on image-text pairs has
    150 epochs of a 50th of its data; schedules, evaluation and checkpoints count them."""

    resume: bool = False
    """Continue from the last complete checkpoint in ``output_dir``; without one, say so and start fresh."""

    overwrite_output_dir: bool = False
    """Delete the checkpoints of an earlier run in ``output_dir`` and start fresh. Nothing is deleted before
    all else has been accepted, and nothing that is not of such a run."""

    early_stopping_patience: Count | None = None
    """Stop after this many evaluations in a row that are no better; None does not stop early."""

    early_stopping_threshold: Rate = 0.0
    """How much an evaluation must be better to count as such."""

    stop_on_non_finite: bool = True
    """Stop at the first loss or gradient that is not finite, and name the records of the batch."""

    peak_flops: Positive | None = None
    """Peak FLOP/s of one device, for model FLOPs utilisation (MFU) where the device is not in the built-in
    table."""

    logging_steps: float = 10.0
    """Optimiser steps between two log records (below 1: share of all steps)."""

    save_steps: float = 500.0
    """Optimiser steps between two checkpoints, with ``save_strategy=steps`` (below 1: share of all steps)."""

    warmup_steps: float = 0.0
    """Warm-up of the transformers schedules in optimiser steps (below 1: share of all steps)."""

    eval_delay: float = 0.0
    """Epochs or steps, as ``eval_strategy`` counts, before the first evaluation."""

    logging_nan_inf_filter: bool = False
    """Hide losses that are not finite from the log."""

    remove_unused_columns: bool = False
    """Drop columns that the model does not take. Off, because the record ids travel with the batch."""

    ddp_find_unused_parameters: bool | None = False
    """Let DDP look for parameters without gradient in every step; needed for mixtures of experts only."""

    def __post_init__(self) -> None:
        """Apply the preset, check the request against the machine, derive the learning rate."""
        if self.preset is not None:
            self._fill(PRESETS[self.preset])
        if self.data_seed is None:
            self.data_seed = self.seed
        self.report_to = "none" if self.report_to is None else self.report_to
        check_ranges(self)
        check_together(self)
        check_packages(self)
        check_settings(self)
        settle_fsdp(self)
        self._choose_metric()
        try:
            super().__post_init__()
        except UserError:
            raise
        except (
            ValueError,
            TypeError,
            AttributeError,
            LookupError,
            ImportError,
            OSError,
            RuntimeError,
        ) as error:
            raise UserError(
                f"Settings under `training` do not fit together: {error}. Set them as the message says."
            ) from error
        try_optimizer(self)
        check_processes(self)
        check_checkpointing(self)
        check_batching(self, self.batching, self.tokens_per_batch)
        if self.types == "published" and self.batching != "rows":
            raise UserError(
                f"types={self.types!r} has batches of a fixed number of rows, and batching is "
                f"{self.batching!r}. Set batching=rows, or types=apart."
            )
        if self.device.type == "cpu":
            self.dataloader_pin_memory = False
        if self.preset is not None and self.batching == "rows" and self.gradient_accumulation_steps == 1:
            rows_per_pass = self.per_device_train_batch_size * self.world_size
            self.gradient_accumulation_steps = accumulation_for(self.preset, rows_per_pass)
        if self.base_learning_rate is not None:
            self._scale_learning_rate(self.base_learning_rate)

    @property
    def rows_per_step(self) -> int:
        """Rows of one optimiser step, over devices and accumulation."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps * self.world_size

    def _choose_metric(self) -> None:
        """Say by what the best model is chosen; the host takes more to be better of all but losses."""
        if self.early_stopping_patience is not None and self.metric_for_best_model is None:
            self.metric_for_best_model = "loss"
        if (self.metric_for_best_model or "").removeprefix("eval_") in METRICS:
            self.greater_is_better = False

    def _fill(self, values: dict[str, Any]) -> None:
        defaults = {field.name: field.default for field in fields(self)}
        # A learning rate that the user gave wins over the recipe's base rate.
        if self.learning_rate != defaults["learning_rate"]:
            values = {name: value for name, value in values.items() if name != "base_learning_rate"}
        for name, value in values.items():
            if getattr(self, name) == defaults[name]:
                setattr(self, name, value)

    def _scale_learning_rate(self, base: float) -> None:
        rate = scaled_learning_rate(base, self.rows_per_step)
        default = next(field.default for field in fields(self) if field.name == "learning_rate")
        if self.learning_rate not in (default, rate):
            raise UserError(
                f"Both learning_rate={self.learning_rate:g} and base_learning_rate={base:g} were given. "
                "Use one of them: the base rate is scaled by the rows per step / 256."
            )
        self.learning_rate = rate
