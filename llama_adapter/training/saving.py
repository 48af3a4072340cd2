"""Checkpoints and resuming, as a layer between transformers' Trainer and ours.

The host writes a checkpoint file by file into the folder that carries its name; here it writes into a staging
folder, which gets its manifest and its name when everything is on disk, and only then are older checkpoints
deleted. What is unusual: the trick is one method, ``_get_output_dir``, that answers with the staging folder
while a checkpoint is written, so whatever the host puts into checkpoints (also sharded ones) is kept. This
layer does not know losses or schedules.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sized
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import transformers
from accelerate.utils import broadcast_object_list
from peft.utils import CONFIG_NAME as ADAPTER_SETTINGS
from rich.console import Console
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.trainer import SCHEDULER_NAME, TRAINER_STATE_NAME, TRAINING_ARGS_NAME
from transformers.trainer_utils import TrainOutput
from transformers.utils import CONFIG_NAME as MODEL_SETTINGS

from llama_adapter.adapters.fingerprint import differences, fingerprint
from llama_adapter.data.identity import rows_digest
from llama_adapter.data.saved_template import save_template
from llama_adapter.errors import UserError
from llama_adapter.models import AdapterNotes, write_notes
from llama_adapter.training import checkpoint as files
from llama_adapter.training.groups import ParameterGroups
from llama_adapter.training.model_card import write_card
from llama_adapter.training.parts import TrainedParts
from llama_adapter.training.rates import load_with_new_rates
from llama_adapter.training.resume import (
    changed_settings,
    changes_rates,
    check_same_adapter,
    check_same_sharding,
    choose_checkpoint,
    flattened,
    warn_about_changes,
)
from llama_adapter.training.sharding import load_optimizer, load_weights, stored_by_fsdp


class CheckpointingTrainer(transformers.Trainer):
    """Saves complete checkpoints or none, and resumes from the last complete one."""

    def __init__(
        self,
        *args: Any,
        notes: AdapterNotes | None = None,
        groups: ParameterGroups | None = None,
        settings: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Set up as the host class does.

        Args:
            *args: As for ``transformers.Trainer``.
            notes: What is saved beside the adapter for generation.
            groups: Which parts train on which records, found in the model; None for all on all.
            settings: What checkpoints remember beside ``args``, by dotted names; compared when resuming.
            **kwargs: As for ``transformers.Trainer``.
        """
        super().__init__(*args, **kwargs)
        self.notes = notes or AdapterNotes()
        self.groups = groups or ParameterGroups(self.parts)
        self.console = Console(quiet=not self.is_world_process_zero())
        self.settings = dict(settings or {})
        self.changes: list[str] = []
        """Settings that differ from those of the checkpoint that the run goes on from."""
        self._staging: Path | None = None
        self._to_push: list[str] = []
        self._chosen: str | None = None

    @property
    def unwrapped(self) -> nn.Module:
        """The model without what accelerate put around it."""
        return self.accelerator.unwrap_model(self.model)

    @property
    def parts(self) -> TrainedParts:
        """The parts of the model."""
        return TrainedParts.of(self.unwrapped)

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> TrainOutput:
        """Train; ``resume_from_checkpoint=True`` continues from the last complete checkpoint.

        Without one, it says so and starts fresh.

        Raises:
            UserError: When a named checkpoint is damaged, or belongs to another adapter.
        """
        start = self.choose_start(resume_from_checkpoint) if resume_from_checkpoint else None
        return super().train(start, trial, ignore_keys_for_eval)

    def choose_start(self, request: str | bool) -> str | None:
        """The checkpoint that a run would go on from; rank 0 decides, the others follow.

        Args:
            request: its path, or True for the last complete one.

        Raises:
            UserError: the named one is damaged, or of a run with settings that cannot be changed.
        """
        if request == self._chosen:
            return self._chosen
        chosen: list[str | None] = [None]
        if self.is_world_process_zero():
            choice = choose_checkpoint(Path(self.args.output_dir or "."), request)
            self.console.print(choice.message, highlight=False, soft_wrap=True)
            chosen = [choice.path]
        chosen = broadcast_object_list(chosen)
        if chosen[0] is not None:
            path = Path(chosen[0])
            if self.parts.adapter is not None:
                check_same_sharding(path, self.is_fsdp_enabled)
                check_same_adapter(path, self.parts.adapter.active_peft_config)
            self.parts.check_same_beside(path)
            self._check_base(path)
            facts = self._facts()
            self.changes = changed_settings(path, facts)
            warn_about_changes(path, facts)
        self._chosen = chosen[0]
        return chosen[0]

    def _check_base(self, checkpoint: Path) -> None:
        """Refuse a frozen base whose sizes or embeddings are others than those a checkpoint was trained on.

        Raises:
            UserError: they are; names what differs.
        """
        saved = files.read_manifest(checkpoint)["run"].get("base")
        if saved is None or self.parts.adapter is None or self._base_fingerprint is None:
            return
        if found := differences(saved, self.parts.adapter.get_base_model()):
            raise UserError(
                f"{checkpoint} was trained on another base than base.name_or_path={self.notes.base!r} "
                f"({'; '.join(found)}). Use that base, or another output_dir."
            )

    def _keep_rates(self, load: Callable[[], None]) -> None:
        """Loads optimiser and schedule, and puts rates back to what the settings say where they changed."""
        optimizer: Any = self.optimizer
        if not changes_rates(self.changes) or optimizer is None:
            load()
            return
        if self.is_deepspeed_enabled:
            raise UserError(
                f"DeepSpeed brings saved rates back, and these settings changed: {'; '.join(self.changes)}. "
                "Use those the checkpoint was written with."
            )
        load_with_new_rates(optimizer, self.lr_scheduler, load)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the adapter (no base weights) with its README and what generation needs to know.

        Of a model without an adapter, all of it; but a sharded run that keeps shards saves nothing here, as
        the shards are written beside it.
        """
        super().save_model(output_dir, _internal_call)
        self._describe(Path(output_dir or self.args.output_dir or "."))

    def _describe(self, folder: Path) -> None:
        """Put notes beside what was saved, and a README beside an adapter."""
        if not self.args.should_save or not folder.is_dir():
            return
        write_notes(folder, self.notes)
        self._take_template_along(folder)
        if self.parts.adapter is None or not (folder / ADAPTER_SETTINGS).is_file():
            return
        config = self.parts.adapter.active_peft_config
        base = self.notes.base or config.base_model_name_or_path or "the base model"
        sees = self.parts.conditioner is not None
        write_card(folder, base, str(config.peft_type), self.notes.template, sees)

    def _take_template_along(self, folder: Path) -> None:
        """Write where answers end, and how the model is asked, beside a whole model."""
        given: Any = self.processing_class
        tokenizer = getattr(given, "tokenizer", given)
        whole = self.parts.adapter is None and (folder / MODEL_SETTINGS).is_file()
        if whole and isinstance(tokenizer, PreTrainedTokenizerBase):
            save_template(folder, tokenizer, self.notes.template, asks=tokenizer is given)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Let the host save the adapter, then what belongs beside it."""
        with self._adapter_alone():
            super()._save(output_dir, state_dict)
        if self.args.should_save:
            self.parts.save_beside(Path(output_dir or self.args.output_dir or "."))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Let the host load the adapter, then load what lies beside it; a whole model is loaded here."""
        folder = Path(resume_from_checkpoint)
        if self._is_whole_model and not (self.is_fsdp_enabled and stored_by_fsdp(folder)):
            load_weights(self.unwrapped, folder)
            return
        if self.parts.conditioner is not None:
            model = self.parts.language_model
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self.parts.load_beside(folder)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """As the host does; of a whole model also where only one of run and checkpoint is sharded."""
        self._keep_rates(lambda: self._load_optimization(checkpoint))

    def _load_optimization(self, checkpoint: str | None) -> None:
        crosses = checkpoint is not None and stored_by_fsdp(Path(checkpoint)) != self.is_fsdp_enabled
        if checkpoint is None or not crosses or not self._is_whole_model:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        wrapped: Any = self.optimizer
        load_optimizer(self.unwrapped, getattr(wrapped, "optimizer", wrapped), Path(checkpoint))
        schedule: Any = self.lr_scheduler
        schedule.load_state_dict(torch.load(Path(checkpoint) / SCHEDULER_NAME, weights_only=True))

    def _load_best_model(self) -> None:
        """Load the best checkpoint at the end of a run."""
        best = Path(self.state.best_model_checkpoint or "")
        if self._is_whole_model and not self.is_fsdp_enabled:
            load_weights(self.unwrapped, best)
            return
        with self._adapter_alone():
            super()._load_best_model()
        self.parts.load_beside(best)

    @property
    def _is_whole_model(self) -> bool:
        """Whether checkpoints hold a model of transformers without adapter, in files that are read here."""
        model = self.unwrapped
        carries = self.parts.adapter is not None or getattr(model, "_hf_peft_config_loaded", False)
        return isinstance(model, PreTrainedModel) and not carries and not self.is_deepspeed_enabled

    @contextmanager
    def _adapter_alone(self) -> Iterator[None]:
        """Inside, the host sees only the part of the model that it knows how to save and load."""
        whole = self.model
        if self.parts.conditioner is not None:
            self.model = self.parts.language_model
        try:
            yield
        finally:
            self.model = whole

    def save_result(self, folder: Path) -> None:
        """Save what was trained, the adapter or the whole model, as complete or absent as a checkpoint.

        A sharded model is gathered in the memory of the first process, and saved as one process would.
        """
        staging = folder.with_name(f".incomplete-{folder.name}")
        written = staging / folder.name  # the README tells this name
        if self.args.should_save:
            shutil.rmtree(staging, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        if self.is_fsdp_enabled:
            self._save(str(written), self._gathered())
            self._describe(written)
        else:
            self.save_model(str(written))
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            (written / TRAINING_ARGS_NAME).unlink(
                missing_ok=True
            )  # a pickle, which loading an adapter must not need
            files.publish(written, folder, self._facts())
            staging.rmdir()
        self.accelerator.wait_for_everyone()

    def _gathered(self) -> dict[str, Any]:
        """All weights of a sharded model, on the first process; tied ones once, as usual in files."""
        state: dict[str, Any] = self.accelerator.get_state_dict(self.model)
        for name in getattr(self.unwrapped, "all_tied_weights_keys", {}):
            state.pop(name, None)
        return state

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Let the host write into a staging folder, then close and rename it; only then delete older ones."""
        output_dir = Path(self._get_output_dir(trial))
        final = output_dir / f"checkpoint-{self.state.global_step}"
        staging = files.staging_folder(output_dir, self.state.global_step)
        if self.args.should_save:
            files.clear_staging(output_dir)
            staging.mkdir(parents=True)
        self.accelerator.wait_for_everyone()
        self._staging = staging
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self._staging = None
        self.accelerator.wait_for_everyone()
        best = self.state.best_model_checkpoint
        if best is not None and Path(best) == staging / final.name:
            self.state.best_model_checkpoint = str(final)
        if self.args.should_save:
            self.state.save_to_json(str(staging / final.name / TRAINER_STATE_NAME))
            files.publish(staging / final.name, final, self._facts())
            staging.rmdir()
            best = self.state.best_model_checkpoint
            files.prune(output_dir, self.args.save_total_limit, [final, *([Path(best)] if best else [])])
        self.accelerator.wait_for_everyone()
        while self._to_push:
            super()._push_from_checkpoint(str(output_dir / Path(self._to_push.pop()).name))

    def _get_output_dir(self, trial: Any) -> str:
        """The run's folder; the staging folder while a checkpoint is being written."""
        return str(self._staging) if self._staging is not None else super()._get_output_dir(trial)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Upload to the hub; while a checkpoint is being written, remember to do so once it has its name."""
        if self._staging is not None:
            self._to_push.append(checkpoint_folder)
        else:
            super()._push_from_checkpoint(checkpoint_folder)

    def _facts(self) -> dict[str, Any]:
        """What decides the order of records; kept in manifests and compared when resuming."""
        data = self.train_dataset
        return {
            "world_size": self.args.world_size,
            "per_device_train_batch_size": self.args.per_device_train_batch_size,
            "gradient_accumulation_steps": self.args.gradient_accumulation_steps,
            **{
                name: getattr(self.args, name, None)
                for name in ("batching", "tokens_per_batch", "epoch_parts", "types")
            },
            "groups": [[records, sorted(members)] for records, members in self.groups.members],
            "data_seed": self.args.data_seed,
            "train_records": len(data) if isinstance(data, Sized) else None,
            "data": self._data_digest,
            "base": self._base_fingerprint,
            "settings": {
                **self.settings,
                **flattened(json.loads(json.dumps(self.args.to_dict(), default=str)), "training."),
            },
        }

    @cached_property
    def _data_digest(self) -> str | None:
        """What the training rows are known by; None for streamed ones."""
        return rows_digest(self.train_dataset)

    @cached_property
    def _base_fingerprint(self) -> dict[str, Any] | None:
        """What the frozen base is known by; None where it trains or is divided."""
        if self.parts.adapter is None or self.is_fsdp_enabled or self.is_deepspeed_enabled:
            return None
        return fingerprint(self.parts.adapter.get_base_model())
