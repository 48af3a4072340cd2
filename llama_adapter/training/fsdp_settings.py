"""What differs here from FSDP as transformers and accelerate set it up.

Checkpoints are kept in shards, because gathering a model that needs sharding takes the memory of one process.
Gradients are added up in fp32, whatever the computation's precision: added in bf16, their sum would depend on
the number of processes, and micro-batches would be lost in it. Nothing is sharded here.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from transformers import TrainingArguments

from llama_adapter.errors import UserError
from llama_adapter.training.groups import ParameterGroups
from llama_adapter.training.parts import TrainedParts

_LAYOUT = "state_dict_type"


def settle_fsdp(args: TrainingArguments) -> None:
    """Fill in settings before ``TrainingArguments`` reads them.

    Raises:
        UserError: the file of settings cannot be read, or the first version of FSDP was asked for.
    """
    if not args.fsdp:
        return
    if isinstance(args.fsdp_config, str):
        args.fsdp_config = _read(Path(args.fsdp_config))
    settings = {name.removeprefix("fsdp_"): value for name, value in (args.fsdp_config or {}).items()}
    if str(settings.get("version", 2)) != "2":
        raise UserError(
            f"fsdp_config.version={settings['version']} is the first FSDP, which wraps modules and renames "
            "what checkpoints are read by. Leave it out, or use 2."
        )
    if not args.save_only_model:  # which the host has for gathered checkpoints only
        settings.setdefault(_LAYOUT, "SHARDED_STATE_DICT")
    args.fsdp_config = settings


def reduce_in_fp32(accelerator: Accelerator) -> None:
    """Let sharded runs with mixed precision add up gradients in fp32, and return outputs as they are."""
    plugin: Any = getattr(accelerator.state, "fsdp_plugin", None)
    policy = None if plugin is None else plugin.mixed_precision_policy
    if policy is not None:
        plugin.mixed_precision_policy = replace(policy, reduce_dtype=torch.float32, output_dtype=None)


def check_shardable(accelerator: Accelerator, parts: TrainedParts, groups: ParameterGroups) -> None:
    """Refuse what is kept or trained apart from the model that FSDP divides.

    Raises:
        UserError: a run is sharded and has a conditioner, or parts that train on some records only.
    """
    if accelerator.distributed_type is not DistributedType.FSDP:
        return
    if parts.conditioner is not None:
        raise UserError(
            f"fsdp=true divides one model, and {type(parts.conditioner).__name__} is kept beside it. "
            "Leave fsdp out to train an image-conditioned adapter data-parallel."
        )
    if groups.joint:
        raise UserError(
            f"fsdp=true meets groups for {[records for records, _ in groups.members]} records, whose "
            "gradients cannot be dropped apart. Leave fsdp out, or train all parts on all records."
        )


def _read(path: Path) -> dict[str, Any]:
    """Settings of a file.

    Raises:
        UserError: there is none, or it is no JSON object.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"fsdp_config={str(path)!r} cannot be read ({error}). Name a JSON file.") from error
    if not isinstance(found, dict):
        raise UserError(f"fsdp_config={str(path)!r} holds {type(found).__name__}. Use a JSON object.")
    return found
