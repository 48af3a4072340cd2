"""Settings that do not go together, or need what is not installed, found before anything is read.

Each rule names both settings and what to do. Settings that one of two would silently override count as
contradictions, except where the other one switches off what they are about.
"""

import dataclasses
import importlib.util
import json
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from transformers import Trainer
from transformers.integrations.integration_utils import get_available_reporting_integrations
from transformers.optimization import get_scheduler
from transformers.trainer_pt_utils import AcceleratorConfig
from transformers.trainer_utils import SchedulerType

from llama_adapter.errors import UserError

if TYPE_CHECKING:
    from llama_adapter.training.config import TrainingConfig

_log = logging.getLogger(__name__)

METRICS = ("loss", "perplexity")
"""What an evaluation of `train` yields to choose by; lower is better."""


_NEEDS = {
    "activation_checkpointing_kwargs": ("activation_checkpointing", "gradient_checkpointing"),
    "gradient_checkpointing_kwargs": ("activation_checkpointing", "gradient_checkpointing"),
    "fsdp_config": ("fsdp",),
    "hub_model_id": ("push_to_hub",),
    "hub_private_repo": ("push_to_hub",),
    "hub_revision": ("push_to_hub",),
    "liger_kernel_config": ("use_liger_kernel",),
    "dataloader_prefetch_factor": ("dataloader_num_workers",),
    "dataloader_persistent_workers": ("dataloader_num_workers",),
    "dataloader_multiprocessing_context": ("dataloader_num_workers",),
    "early_stopping_threshold": ("early_stopping_patience",),
}
"""Settings without effect unless one of others is set."""


def check_together(args: "TrainingConfig") -> None:
    """Check pairs of settings before ``TrainingArguments`` acts on them.

    Raises:
        UserError: two of them exclude each other.
    """
    for rule in (_needs, _evaluation, _best, _saving, _schedule, _loss, _starting):
        for problem in rule(args):
            raise UserError(problem)


def check_packages(args: "TrainingConfig") -> None:
    """Check that packages which settings need are installed.

    Raises:
        UserError: one is missing.
    """
    check_accelerator(args)
    wanted = set(args.report_to) if isinstance(args.report_to, list) else {args.report_to or "none"}
    if missing := sorted(wanted - {"none", "all", *get_available_reporting_integrations()}):
        raise UserError(
            f"report_to is {args.report_to!r}, and {missing[0]} is not installed. "
            f"Run `pip install {missing[0]}`, or leave it out."
        )
    for name, package in (("deepspeed", "deepspeed"), ("use_liger_kernel", "liger_kernel")):
        if getattr(args, name) and importlib.util.find_spec(package) is None:
            raise UserError(
                f"{name} is {getattr(args, name)!r}, and {package} is not installed. "
                f"Run `pip install {package.replace('_', '-')}`, or leave {name} out."
            )


def check_accelerator(args: "TrainingConfig") -> None:
    """Check that ``accelerator_config`` is one: a mapping of its fields, or a JSON file with them.

    Raises:
        UserError: it is none.
    """
    given = args.accelerator_config
    try:
        if isinstance(given, str) and given.startswith("{"):
            given = json.loads(given)
        if isinstance(given, dict):
            AcceleratorConfig(**given)
        elif isinstance(given, str):
            AcceleratorConfig.from_json_file(given)
    except (OSError, TypeError, ValueError, AttributeError) as error:
        fields = ", ".join(field.name for field in dataclasses.fields(AcceleratorConfig))
        raise UserError(
            f"accelerator_config is {given!r}: {error}. Use some of {fields}, or a JSON file with them."
        ) from error


def try_optimizer(args: "TrainingConfig") -> None:
    """Make optimiser and schedule for one number, so that what they refuse is refused at once.

    Raises:
        UserError: one of them does.
    """
    model: Any = torch.nn.Linear(1, 1)
    try:
        kind, settings = Trainer.get_optimizer_cls_and_kwargs(args, model)
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        if not {"optimizer_dict", "params", "model"} & settings.keys():
            optimizer = kind(model.parameters(), **settings)
    except (ImportError, RuntimeError, TypeError, ValueError, AssertionError) as error:
        raise UserError(
            f"optim is {getattr(args.optim, 'value', args.optim)!r} with optim_args={args.optim_args!r}: "
            f"{' '.join(str(error).split())} Use another one, or what the message names."
        ) from error
    if args.schedule != "transformers":
        return
    extra = args.lr_scheduler_kwargs if isinstance(args.lr_scheduler_kwargs, dict) else None
    try:
        get_scheduler(args.lr_scheduler_type, optimizer, 1, 10, scheduler_specific_kwargs=extra)
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        kind_name = getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type)
        raise UserError(
            f"lr_scheduler_kwargs is {extra!r} with lr_scheduler_type={kind_name!r}: "
            f"{' '.join(str(error).split())} Use keys that this schedule takes."
        ) from error


def _name(value: object) -> str:
    return str(getattr(value, "value", value))


def _needs(args: "TrainingConfig") -> Iterator[str]:
    for name, switches in _NEEDS.items():
        if getattr(args, name) and not any(getattr(args, switch) for switch in switches):
            yield (
                f"{name} is {getattr(args, name)!r}, which has no effect while {switches[0]} is "
                f"{getattr(args, switches[0])!r}. Set {switches[0]}, or leave {name} out."
            )


def _evaluation(args: "TrainingConfig") -> Iterator[str]:
    strategy = _name(args.eval_strategy)
    if args.eval_steps is not None and strategy == "no":
        _log.warning("eval_steps=%g has no effect with eval_strategy=no.", args.eval_steps)
    if args.eval_steps is not None and strategy == "epoch":
        yield (
            f"eval_steps is {args.eval_steps:g} with eval_strategy={strategy!r}, which does not count steps. "
            "Set eval_strategy=steps, or eval_steps=null."
        )


def _best(args: "TrainingConfig") -> Iterator[str]:
    chooses = (
        args.load_best_model_at_end
        or args.early_stopping_patience is not None
        or _name(args.save_strategy) == "best"
        or _name(args.lr_scheduler_type) in ("reduce_lr_on_plateau", "greedy")
    )
    metric = args.metric_for_best_model
    if not chooses and (metric is not None or args.greater_is_better is not None):
        yield (
            f"metric_for_best_model={metric!r} with greater_is_better={args.greater_is_better} chooses "
            "nothing. Set load_best_model_at_end or early_stopping_patience, or leave them out."
        )
    if chooses and _name(args.eval_strategy) == "no":
        yield (
            f"eval_strategy is 'no', and load_best_model_at_end={args.load_best_model_at_end}, "
            f"early_stopping_patience={args.early_stopping_patience}, "
            f"save_strategy={_name(args.save_strategy)!r} or "
            f"lr_scheduler_type={_name(args.lr_scheduler_type)!r} wants evaluations. Set eval_strategy."
        )
    if chooses and args.greater_is_better and (metric or "loss").removeprefix("eval_") in METRICS:
        yield (
            f"greater_is_better is True, and of metric_for_best_model={metric or 'loss'!r} less is better. "
            "Leave greater_is_better out."
        )


def _saving(args: "TrainingConfig") -> Iterator[str]:
    if args.load_best_model_at_end and _name(args.save_strategy) == "no":
        yield (
            f"load_best_model_at_end is True with save_strategy={_name(args.save_strategy)!r}, so no "
            "checkpoint is there to load. Set save_strategy as eval_strategy is."
        )
    defaults = {"logging": 10.0, "save": 500.0}
    for what, default in defaults.items():
        strategy, steps = _name(getattr(args, f"{what}_strategy")), getattr(args, f"{what}_steps")
        if strategy in ("epoch", "best") and steps != default:
            yield (
                f"{what}_steps is {steps:g} with {what}_strategy={strategy!r}, which does not count steps. "
                f"Set {what}_strategy=steps, or leave {what}_steps out."
            )


def _schedule(args: "TrainingConfig") -> Iterator[str]:
    kind = _name(args.lr_scheduler_type)
    if args.schedule == "transformers":
        if args.warmup_epochs or args.min_learning_rate:
            yield (
                f"warmup_epochs={args.warmup_epochs:g} and min_learning_rate={args.min_learning_rate:g} are "
                f"of schedule=published, and schedule is {args.schedule!r}. Use warmup_steps."
            )
        return
    if args.warmup_steps or kind != SchedulerType.LINEAR.value or args.lr_scheduler_kwargs:
        yield (
            f"warmup_steps={args.warmup_steps:g}, lr_scheduler_type={kind!r} and lr_scheduler_kwargs="
            f"{args.lr_scheduler_kwargs!r} are of schedule=transformers, and schedule is {args.schedule!r}. "
            "Use warmup_epochs and min_learning_rate, or that schedule."
        )
    if args.learning_rate == 0 and args.base_learning_rate is None:
        yield f"learning_rate is 0 with schedule={args.schedule!r}, which divides by it. Use one above 0."
    if args.base_learning_rate is None and args.min_learning_rate > args.learning_rate:
        yield (
            f"min_learning_rate is {args.min_learning_rate:g}, above learning_rate={args.learning_rate:g}. "
            "Use a smaller one."
        )
    if args.max_steps < 0 and args.warmup_epochs >= args.num_train_epochs:
        yield (
            f"warmup_epochs={args.warmup_epochs:g} does not fit into "
            f"num_train_epochs={args.num_train_epochs:g}. Choose a shorter warm-up, or more epochs."
        )


def _loss(args: "TrainingConfig") -> Iterator[str]:
    if args.loss_chunk_rows is not None and args.loss_kernel not in ("auto", "chunked"):
        yield (
            f"loss_chunk_rows is {args.loss_chunk_rows} with loss_kernel={args.loss_kernel!r}, which has no "
            "chunks. Set loss_kernel=chunked, or leave loss_chunk_rows out."
        )
    if args.fsdp and args.deepspeed:
        yield f"fsdp={args.fsdp!r} and deepspeed={args.deepspeed!r} both shard. Use one of them."
    if args.checkpointing_every > 1 and args.checkpointing == "none":
        yield (
            f"checkpointing_every is {args.checkpointing_every} with checkpointing={args.checkpointing!r}. "
            "Choose what is checkpointed, or leave checkpointing_every out."
        )


def _starting(args: "TrainingConfig") -> Iterator[str]:
    if args.overwrite_output_dir and (args.resume or args.resume_from_checkpoint):
        named = args.resume_from_checkpoint or args.resume
        yield (
            f"overwrite_output_dir is True with resume {named!r}: one deletes what the other continues. "
            "Use one of them."
        )
