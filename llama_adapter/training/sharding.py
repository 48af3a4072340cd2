"""Weights and optimiser states of whole models, read from checkpoints however model or files are divided.

FSDP stores tensors by name, in as many files as there were processes or gathered in one; other runs store a
model as ``save_pretrained`` does and the optimiser's states by number. Each is read here into a model that is
sharded or not. What is unusual: a folder of transformers is read as ``from_pretrained`` reads it. The host's
trainer compares names of files with names of modules, and where a family has two sets of them (the experts of
Mixtral) it would go on with the weights that the model had before, and only warn. Adapters are not known
here, nor how checkpoints are written.
"""

import warnings
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import FSDPModule
from torch.optim import Optimizer
from transformers import PreTrainedModel

from llama_adapter.errors import UserError

WEIGHT_SHARDS = "pytorch_model_fsdp_0"
"""Folder of a checkpoint with the weights in shards."""

GATHERED_WEIGHTS = "pytorch_model_fsdp.bin"
"""File with all of them, where FSDP was told to gather."""

_OPTIMIZER_SHARDS = "optimizer_0"
_GATHERED_OPTIMIZER = "optimizer.bin"
_NUMBERED_OPTIMIZER = "optimizer.pt"
_RECOMPUTED = "_checkpoint_wrapped_module."
"""What recomputed layers add to names, and checkpoints leave out."""


def stored_by_fsdp(folder: Path) -> bool:
    """Whether a checkpoint was written by a sharded run."""
    return (folder / WEIGHT_SHARDS).is_dir() or (folder / GATHERED_WEIGHTS).is_file()


def load_weights(model: nn.Module, folder: Path) -> None:
    """Read the weights of a checkpoint into a whole model; all processes call it.

    Args:
        model: sharded or not.
        folder: a checkpoint of any number of processes, or what ``save_pretrained`` wrote.

    Raises:
        UserError: the folder is of another model.
    """
    if (folder / WEIGHT_SHARDS).is_dir():
        state = get_model_state_dict(model)
        _read_shards({"model": state}, folder / WEIGHT_SHARDS)
        set_model_state_dict(model, state)
        return
    full: Mapping[str, Any] = {}
    if _reads_for_all(model):
        full = _gathered(folder / GATHERED_WEIGHTS) or _pretrained(model, folder)
    set_model_state_dict(model, dict(full), options=_from_whole(model))


def load_optimizer(model: nn.Module, optimizer: Optimizer, folder: Path) -> None:
    """Read the optimiser's states of a checkpoint; all processes call it.

    Args:
        model: whose weights the optimiser moves, sharded or not.
        optimizer: with the same weights in the same groups as the one that was saved.
        folder: a checkpoint.

    Raises:
        UserError: the checkpoint is of another optimiser.
    """
    if (folder / _OPTIMIZER_SHARDS).is_dir():
        state = get_optimizer_state_dict(model, optimizer)
        _read_shards({"optimizer": state}, folder / _OPTIMIZER_SHARDS)
        set_optimizer_state_dict(model, optimizer, state)
        return
    full: Mapping[str, Any] = {}
    if _reads_for_all(model):
        full = _gathered(folder / _GATHERED_OPTIMIZER) or _named(
            _gathered(folder / _NUMBERED_OPTIMIZER), model, optimizer
        )
    set_optimizer_state_dict(model, optimizer, dict(full), options=_from_whole(model))


def _read_shards(state: dict[str, Any], folder: Path) -> None:
    """Fill tensors in place, each process its part.

    Raises:
        UserError: names or shapes differ.
    """
    try:
        with warnings.catch_warnings():
            # One process may well read what several wrote.
            warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
            dcp.load(state, storage_reader=dcp.FileSystemReader(folder))
    except (dcp.CheckpointException, RuntimeError, ValueError) as error:
        raise UserError(
            f"{folder} does not fit the model that is trained ({error}). "
            "Use the settings it was trained with, or choose another output_dir."
        ) from error


def _gathered(path: Path) -> dict[str, Any]:
    """A file of tensors, mapped and not read; nothing where there is none."""
    if not path.is_file():
        return {}
    found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    return found


def _pretrained(model: nn.Module, folder: Path) -> dict[str, Any]:
    """The state of a model that ``from_pretrained`` reads, in fp32, which holds 16 bits exactly.

    Raises:
        UserError: it is no model of transformers, or the folder is of another one.
    """
    classes: list[Any] = [
        kind
        for kind in type(model).__mro__
        if issubclass(kind, PreTrainedModel) and not issubclass(kind, FSDPModule)
    ]
    if not classes:
        raise UserError(
            f"{folder} cannot be read into {type(model).__name__}, which is no model of transformers. "
            "Use one, or resume with the settings of the run that wrote it."
        )
    kept = {"config": deepcopy(model.config), "dtype": torch.float32, "ignore_mismatched_sizes": True}
    loaded, report = classes[0].from_pretrained(folder, **kept, output_loading_info=True)
    other = sorted(
        str(key) for kind in ("missing", "unexpected", "mismatched") for key in report[f"{kind}_keys"]
    )
    if other:
        raise UserError(
            f"{folder} is of another model: {len(other)} tensors do not fit, such as {other[0]!r}. "
            "Use the settings it was trained with, or choose another output_dir."
        )
    state: dict[str, Any] = loaded.state_dict()
    return state


def _named(numbered: dict[str, Any], model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    """States by the names of parameters instead of their places in the optimiser's groups.

    Raises:
        UserError: the groups have other sizes.
    """
    names = {weight: name.replace(_RECOMPUTED, "") for name, weight in model.named_parameters()}
    order = [[names[weight] for weight in group["params"]] for group in optimizer.param_groups]
    groups = numbered.get("param_groups", [])
    if [len(group["params"]) for group in groups] != [len(group) for group in order]:
        raise UserError(
            f"The checkpoint's optimiser has groups of {[len(group['params']) for group in groups]} tensors, "
            f"this run's of {[len(group) for group in order]}. Train the same parts with the same settings."
        )
    by_number = {
        number: name
        for group, of_group in zip(groups, order, strict=True)
        for number, name in zip(group["params"], of_group, strict=True)
    }
    return {
        "state": {by_number[number]: values for number, values in numbered["state"].items()},
        "param_groups": [
            {**group, "params": of_group} for group, of_group in zip(groups, order, strict=True)
        ],
    }


def _from_whole(model: nn.Module) -> StateDictOptions:
    """The first process has all tensors, and a sharded model's others get their parts from it."""
    return StateDictOptions(full_state_dict=True, broadcast_from_rank0=isinstance(model, FSDPModule))


def _reads_for_all(model: nn.Module) -> bool:
    """Whether this process reads: each for itself, but the first for all where the model is sharded."""
    return not isinstance(model, FSDPModule) or dist.get_rank() == 0
