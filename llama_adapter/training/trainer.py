"""``Trainer``: transformers' own, with what adapter training needs and nothing else.

Added: the loss over labelled tokens with an exact mean over the whole optimiser step, evaluation as one mean
over all labelled tokens, the published schedule and decay groups, checkpoints that are complete or absent,
speed and memory in the log, and the non-finite guard. What is unusual: ``OVERRIDDEN`` lists every method of
the host class that is replaced, with its parameters; a test compares it with the installed transformers, so
that a change there is noticed before it changes a result. The trainer knows a model only through its forward
(``logits``, maybe ``aux_loss``) and the names of its inputs.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import EarlyStoppingCallback, PrinterCallback, ProgressCallback
from transformers.trainer_utils import TrainOutput

from llama_adapter.errors import UserError
from llama_adapter.training.activation_memory import apply_checkpointing
from llama_adapter.training.callbacks import JsonlLog, LoopHooks, ProgressBar
from llama_adapter.training.config import TrainingConfig
from llama_adapter.training.evaluating import EvaluatingTrainer
from llama_adapter.training.fsdp_settings import check_shardable, reduce_in_fp32
from llama_adapter.training.guard import Moment, ScalerWatch, check_gradient, check_losses
from llama_adapter.training.labelled_loss import LabelledLoss
from llama_adapter.training.loss import LabelledPositions, labelled_count
from llama_adapter.training.metrics import (
    ThroughputMeter,
    Work,
    has_media,
    peak_flops,
    peak_memory_gib,
    token_count,
    training_flops,
)
from llama_adapter.training.packing import packed_inputs
from llama_adapter.training.requested import check_active, warn_about_16_bit_weights, warn_about_loss_path

OVERRIDDEN: dict[str, tuple[str, ...]] = {
    "_get_grad_norm": ("model", "grad_norm"),
    "_get_output_dir": ("trial",),
    "_load_best_model": (),
    "_load_from_checkpoint": ("resume_from_checkpoint", "model"),
    "_load_optimizer_and_scheduler": ("checkpoint",),
    "_push_from_checkpoint": ("checkpoint_folder",),
    "_run_epoch": (
        "model",
        "epoch",
        "train_dataloader",
        "steps_in_epoch",
        "num_update_steps_per_epoch",
        "trial",
        "ignore_keys_for_eval",
        "start_time",
        "resume_from_checkpoint",
        "epochs_trained",
        "steps_trained_in_current_epoch",
    ),
    "_save": ("output_dir", "state_dict"),
    "_save_checkpoint": ("model", "trial"),
    "compute_loss": ("model", "inputs", "return_outputs", "num_items_in_batch"),
    "create_optimizer": ("model",),
    "create_scheduler": ("num_training_steps", "optimizer"),
    "evaluation_loop": (
        "dataloader",
        "description",
        "prediction_loss_only",
        "ignore_keys",
        "metric_key_prefix",
    ),
    "floating_point_ops": ("inputs",),
    "get_batch_samples": ("epoch_iterator", "num_batches", "device"),
    "get_decay_parameter_names": ("model",),
    "get_eval_dataloader": ("eval_dataset",),
    "get_test_dataloader": ("test_dataset",),
    "get_total_train_batch_size": ("args",),
    "get_train_dataloader": (),
    "log": ("logs", "start_time"),
    "prediction_step": ("model", "inputs", "prediction_loss_only", "ignore_keys"),
    "save_model": ("output_dir", "_internal_call"),
    "set_initial_training_values": ("args", "dataloader"),
    "training_step": ("model", "inputs", "num_items_in_batch"),
    "train": ("resume_from_checkpoint", "trial", "ignore_keys_for_eval"),
}
"""Every method of ``transformers.Trainer`` that is replaced, with its parameters after ``self``."""

PRIVATE_ATTRIBUTES = ("_created_lr_scheduler", "current_gradient_accumulation_steps", "loss_is_scaled_for_ga")
"""Attributes of the host class that are read or set although they are not documented as an interface."""


class Trainer(EvaluatingTrainer):
    """Trains the adapter of a causal language model, or all of one.

    Takes the arguments of ``transformers.Trainer``; ``args`` must be a :class:`TrainingConfig`. Batches hold
    ``input_ids``, ``attention_mask``, ``labels`` and, for messages that name records, ``record_id`` (a list
    of texts). Packed batches hold ``position_ids`` instead of a mask, and ``record_index``, the entry of that
    list to which each token belongs.
    """

    args: TrainingConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Set up as the host class does, then check that what was asked for is active.

        Args:
            *args: As for ``transformers.Trainer``.
            **kwargs: Likewise; and ``notes``, what is saved beside the adapter for generation.

        Raises:
            UserError: When settings do not fit the machine, the data or each other.
        """
        given = kwargs.get("args", args[1] if len(args) > 1 else None)
        if not isinstance(given, TrainingConfig):
            raise UserError(f"args is {type(given).__name__}. Pass a llama_adapter.training.TrainingConfig.")
        try:
            super().__init__(*args, **kwargs)
        except UserError:
            raise
        except ValueError as error:
            raise UserError(
                f"The trainer refused its settings: {error} Set them under `training`."
            ) from error
        check_active(self.args, self.accelerator)
        check_shardable(self.accelerator, self.parts, self.groups)
        reduce_in_fp32(self.accelerator)
        warn_about_loss_path(self.args)
        warn_about_16_bit_weights(self.parts.language_model, self.accelerator)
        self.meter = ThroughputMeter()
        self.loss_is_scaled_for_ga = self.args.loss_reduction == "token"
        self._flops = training_flops(self.parts.language_model)
        self._loss = LabelledLoss(self.args.loss_kernel, self.args.loss_chunk_rows, self.args.torch_compile)
        self._undo_checkpointing: Callable[[], None] = lambda: None
        self._step_tokens = (0, 0, 0)
        self.step_sees = False
        """Whether a record of the optimiser step has an image, on any rank."""
        self._step_records: list[str] = []
        self._scaler_watch: ScalerWatch | None = None
        self._bar = ProgressBar(self.console)
        self._set_callbacks()

    # Loss

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Int[Tensor, ""] | int | None = None,
    ) -> Float[Tensor, ""] | tuple[Float[Tensor, ""], Any]:
        """Loss of one micro-batch, scaled so that micro-batches and ranks add up to ``loss_reduction``.

        Args:
            model: The wrapped model.
            inputs: The batch; ``record_id`` stays here.
            return_outputs: Whether the model's outputs come along; their logits are not all logits.
            num_items_in_batch: Labelled tokens of the whole optimiser step, over ranks.

        Raises:
            UserError: When a loss is not finite, or the batch has no labels.
        """
        outputs, losses, positions = self.token_losses(model, inputs, self.args.label_smoothing_factor)
        if self.args.stop_on_non_finite:
            record_ids = list(inputs.get("record_id", []))
            owners = positions.rows
            if "record_index" in inputs:
                owners = inputs["record_index"].flatten()[positions.index]
            check_losses(losses, owners, record_ids, self._moment())
        if self.args.loss_reduction == "token":
            total = num_items_in_batch if num_items_in_batch is not None else max(losses.numel(), 1)
            # DDP averages gradients over ranks; a sum over all ranks is wanted.
            loss = losses.sum() / total * (self.accelerator.num_processes // self.get_tp_size())
        else:
            loss = losses.sum() / max(losses.numel(), 1)
        loss = loss + self._auxiliary_loss(outputs)
        return (loss, outputs) if return_outputs else loss

    def token_losses(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        label_smoothing: float = 0.0,
        all_logits: bool = False,
    ) -> tuple[Any, Float[Tensor, " N"], LabelledPositions]:
        """See ``EvaluatingTrainer.token_losses``."""
        if inputs.get("labels") is None:
            raise UserError(
                f"A batch has {sorted(inputs)} but no labels. Use llama_adapter.data.PaddingCollator."
            )
        positions = LabelledPositions(inputs["labels"])
        kept_here = ("labels", "record_id", "record_index")
        passed = {name: value for name, value in inputs.items() if name not in kept_here}
        passed.update(packed_inputs(inputs))
        language_model = self.parts.language_model
        if all_logits:
            outputs = model(**passed)
            return outputs, positions.losses(outputs.logits, label_smoothing), positions
        outputs, losses = self._loss(model, passed, positions, language_model, label_smoothing)
        return outputs, losses, positions

    def _auxiliary_loss(self, outputs: Any) -> Float[Tensor, ""] | float:
        """The load-balancing loss of a mixture of experts, where the model returns one."""
        auxiliary = getattr(outputs, "aux_loss", None)
        if auxiliary is None:
            return 0.0
        config: Any = self.parts.language_model.config
        weighted = getattr(config.get_text_config(), "router_aux_loss_coef", 0.0) * auxiliary
        if self.args.loss_reduction == "token":
            return weighted / self.current_gradient_accumulation_steps
        return weighted

    def get_batch_samples(
        self, epoch_iterator: Iterator[dict[str, Any]], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Any]], Int[Tensor, ""]]:
        """Fetch the micro-batches of one optimiser step and count their labelled tokens over all ranks."""
        self.meter.start()
        batches = list(islice(epoch_iterator, num_batches))
        counts = torch.tensor(
            [
                sum(token_count(batch) for batch in batches),
                sum(labelled_count(batch["labels"]) for batch in batches),
                sum(batch["labels"].numel() for batch in batches),
                sum(has_media(batch) for batch in batches),
            ],
            device=device,
        )
        if self.accelerator.num_processes > 1:
            counts = self.accelerator.gather(counts[None]).sum(dim=0) // self.get_tp_size()
        self._step_tokens = (int(counts[0]), int(counts[1]), int(counts[2]))
        self.step_sees = bool(counts[3])
        self._step_records = [name for batch in batches for name in batch.get("record_id", [])]
        return batches, counts[1].clamp(min=1)

    def training_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        num_items_in_batch: Int[Tensor, ""] | int | None = None,
    ) -> Float[Tensor, ""]:
        """One micro-batch; parts that do not train on the records of this step get no gradient."""
        loss = super().training_step(model, inputs, num_items_in_batch)
        self.groups.drop_gradients(self.step_sees)
        return loss

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """The gradient norm, which also stops the run when it is not finite.

        fp16 is left to its gradient scaler, which expects overflows and skips the step; whether it goes on
        skipping is watched at the end of the step.
        """
        norm = super()._get_grad_norm(model, grad_norm)
        if self.args.stop_on_non_finite and self.args.mixed_precision != "fp16":
            whole = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
            check_gradient(float(whole), self._step_records, self._moment())
        return norm

    def _moment(self) -> Moment:
        rate = (
            self.lr_scheduler.get_last_lr()[0] if self.lr_scheduler is not None else self.args.learning_rate
        )
        return Moment(
            step=self.state.global_step + 1,
            learning_rate=float(rate),
            precision=str(self.args.mixed_precision),
        )

    # Running and logging

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> TrainOutput:
        """Train as the host does, with complete checkpoints, and give the terminal back whatever happens."""
        try:
            return super().train(resume_from_checkpoint, trial, ignore_keys_for_eval)
        finally:
            self._undo_checkpointing()
            self._loss.close()
            self._bar.close()

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """An epoch; none where a resumed run is at its end, inside an epoch too."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        super()._run_epoch(*args, **kwargs)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log a record; training records get speed and memory."""
        if "train_loss" in logs and self.meter.total.tokens == 0:
            return  # a resumed run was at its end
        if "loss" in logs or "train_loss" in logs:
            work = self.meter.take_window() if "loss" in logs else self.meter.total
            logs.update(work.rates(self._peak_flops()))
            logs["peak_memory_gib"] = peak_memory_gib(self.args.device)
        super().log(logs, start_time)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """FLOPs of forward and backward of one micro-batch, for a frozen base."""
        return int(self._flops.of(token_count(inputs), labelled_count(inputs["labels"])))

    def _peak_flops(self) -> float | None:
        """Peak FLOP/s of all devices together, where it is known."""
        one = peak_flops(self.args.device, self.args.peak_flops)
        return None if one is None else one * self.args.world_size

    def _set_callbacks(self) -> None:
        """Replace the host's bar and printer by ours; a notebook keeps its own."""
        for unwanted in (ProgressCallback, PrinterCallback):
            self.remove_callback(unwanted)
        if not self.args.disable_tqdm:
            self.add_callback(self._bar)
        self.add_callback(JsonlLog())
        patience, threshold = self.args.early_stopping_patience, self.args.early_stopping_threshold
        if patience is not None:
            self.add_callback(EarlyStoppingCallback(patience, threshold))
        self.add_callback(LoopHooks(self._begin, self._finish_step))

    def _begin(self) -> None:
        """Set up what lasts for one training, and undo what reentrant checkpointing would need.

        For that transformers and peft make the embeddings' output require gradients, so that frozen layers
        below the first adapter are recorded.
        """
        if self.state.global_step >= self.state.max_steps:
            done = f"The checkpoint is at step {self.state.global_step} of {self.state.max_steps}"
            self.console.print(f"{done}: nothing is left to train.", highlight=False)
        scaler = self.accelerator.scaler if self.args.stop_on_non_finite else None
        self._scaler_watch = None if scaler is None else ScalerWatch(scaler.get_scale())
        self._undo_checkpointing = apply_checkpointing(
            self.parts.language_model, self.args.checkpointing, self.args.checkpointing_every
        )
        disable = getattr(self.parts.language_model, "disable_input_require_grads", None)
        if self.args.activation_checkpointing and disable is not None:
            disable()

    def _finish_step(self) -> None:
        if self._scaler_watch is not None:
            moment = replace(self._moment(), step=self.state.global_step)  # which counts this step already
            self._scaler_watch.check(self.accelerator.scaler.get_scale(), self._step_records, moment)
        tokens, labelled, padded = self._step_tokens
        flops = self._flops.of(tokens, labelled)
        self.meter.stop(Work(tokens=tokens, labelled=labelled, padded=padded, flops=flops))
