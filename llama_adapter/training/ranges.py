"""Ranges of the settings that come from transformers, and of those of adapters, beside their types.

A field of ours says its range where it is declared. It does not know which settings go together: that is
``contradictions``.
"""

from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
from transformers.trainer_utils import HubStrategy, IntervalStrategy, SaveStrategy, SchedulerType
from transformers.training_args import OptimizerNames

from llama_adapter.limits import (
    INTERVAL,
    INTERVAL_OR_ZERO,
    SEED,
    Limit,
    above,
    at_least,
    below,
    between,
    one_of,
)

_REPORTERS = ("none", "all", *INTEGRATION_TO_CALLBACK)


def _are_reporters(value: str | list[str]) -> bool:
    return set([value] if isinstance(value, str) else value) <= set(_REPORTERS)


HOST_LIMITS: dict[str, Limit] = {
    "per_device_train_batch_size": at_least(1),
    "per_device_eval_batch_size": at_least(1),
    "gradient_accumulation_steps": at_least(1),
    "num_train_epochs": above(0),
    "max_steps": Limit(lambda value: value == -1 or value >= 1, "1 or more, or -1 for num_train_epochs"),
    "learning_rate": Limit(lambda value: value >= 0, "a number from 0 on"),
    "lr_scheduler_type": one_of(kind.value for kind in SchedulerType),
    "warmup_steps": INTERVAL_OR_ZERO,
    "optim": one_of(kind.value for kind in OptimizerNames),
    "weight_decay": Limit(lambda value: value >= 0, "a number from 0 on"),
    "adam_beta1": below(0, 1),
    "adam_beta2": below(0, 1),
    "adam_epsilon": Limit(lambda value: value >= 0, "a number from 0 on"),
    "max_grad_norm": Limit(lambda value: value >= 0, "a number from 0 on, where 0 does not clip"),
    "label_smoothing_factor": below(0, 1),
    "neftune_noise_alpha": above(0),
    "torch_empty_cache_steps": at_least(1),
    "logging_strategy": one_of(kind.value for kind in IntervalStrategy),
    "logging_steps": INTERVAL,
    "report_to": Limit(_are_reporters, f"one or several of {', '.join(_REPORTERS)}"),
    "eval_strategy": one_of(kind.value for kind in IntervalStrategy),
    "eval_steps": INTERVAL,
    "eval_delay": Limit(lambda value: value >= 0, "a number from 0 on"),
    "eval_accumulation_steps": at_least(1),
    "save_strategy": one_of(kind.value for kind in SaveStrategy),
    "save_steps": INTERVAL,
    "save_total_limit": Limit(lambda value: value >= 1, "1 or more, or leave it out to keep all"),
    "hub_strategy": one_of(kind.value for kind in HubStrategy),
    "log_level": one_of(("debug", "info", "warning", "error", "critical", "passive", "detail")),
    "log_level_replica": one_of(("debug", "info", "warning", "error", "critical", "passive", "detail")),
    "seed": SEED,
    "data_seed": SEED,
    "dataloader_num_workers": between(0, 1024),
    "dataloader_prefetch_factor": at_least(1),
    "dataloader_multiprocessing_context": one_of(("fork", "spawn", "forkserver")),
    "train_sampling_strategy": one_of(("random", "sequential", "group_by_length", "batch_rebalance")),
    "ddp_bucket_cap_mb": at_least(1),
    "ddp_timeout": at_least(1),
    "ddp_backend": one_of(("nccl", "gloo", "mpi", "ccl", "hccl", "cncl", "mccl")),
    "debug": Limit(
        lambda value: (
            isinstance(value, list) or set(value.split()) <= {"underflow_overflow", "tpu_metrics_debug"}
        ),
        "underflow_overflow or tpu_metrics_debug, or leave it out",
    ),
}
"""Of the fields of ``transformers.TrainingArguments``."""

ADAPTER_LIMITS: dict[str, Limit] = {
    "adapter.r": at_least(1),
    "adapter.prompt_layers": Limit(
        lambda value: not isinstance(value, list) or min(value, default=0) >= 0,
        "N for the top-most N layers, -K for all but the first K, or a list of positions from 0 on",
    ),
    "adapter.prompt_length": at_least(0),
    "adapter.lora_alpha": above(0),
    "adapter.lora_dropout": below(0, 1),
    # peft imports the module that is named there
    "adapter.megatron_core": one_of(("megatron.core",)),
}
"""Of the fields of PEFT's configs."""
