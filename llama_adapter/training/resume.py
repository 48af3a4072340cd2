"""Which checkpoint a run continues from, decided once and the same on all ranks.

What is unusual: damaged checkpoints are renamed, not deleted and not used, and settings that differ from
those of a checkpoint are refused or named before anything is loaded: none is ignored. This module does not
load weights.
"""

import json
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import PeftConfig

from llama_adapter.errors import UserError
from llama_adapter.training.checkpoint import defect, last_complete, read_manifest, set_aside
from llama_adapter.training.sharding import stored_by_fsdp

_log = logging.getLogger(__name__)

_STEP = ("world_size", "per_device_train_batch_size", "gradient_accumulation_steps")
"""What an optimiser step's rows are divided by; with plain batches they are the same rows in any division."""

_REFUSED = {
    "data": "the records",
    "groups": "groups",
    "training.optim": "the optimiser",
    "training.optim_args": "the optimiser's arguments",
    "training.weight_decay_rule": "which tensors decay",
}
"""Facts that a run cannot go on without, and what they are."""

_OF_THIS_START = {
    f"training.{name}"
    for name in (
        "output_dir",
        "resume",
        "resume_from_checkpoint",
        "overwrite_output_dir",
        "disable_tqdm",
        "do_train",
        "do_eval",
        "do_predict",
        "hub_token",
        "local_rank",
        "run_name",
    )
}
"""Settings of a start, not of a run."""

_RATES = ("learning_rate", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "groups")
"""What an optimiser's saved state would bring back."""

_STATEFUL = ("reduce_lr_on_plateau", "greedy")
"""Schedules whose rate depends on what they saw."""

_NOT_COMPARED = {"inference_mode", "base_model_name_or_path", "revision", "peft_version", "auto_mapping"}


@dataclass(frozen=True)
class Choice:
    """Where a run starts."""

    path: str | None
    """The checkpoint to load; None starts fresh."""

    message: str
    """What to tell the user."""


def choose_checkpoint(output_dir: Path, request: str | bool) -> Choice:
    """The checkpoint to continue from.

    Args:
        output_dir: Folder of the run.
        request: A path, or True for the last complete checkpoint in ``output_dir``.

    Raises:
        UserError: When a checkpoint was named and is not complete.
    """
    if isinstance(request, str):
        reason = defect(Path(request))
        if reason is not None:
            raise UserError(
                f"{reason} Use a complete checkpoint, or training.resume=true to find the last one."
            )
        return Choice(path=request, message=f"Resuming from {request}.")
    search = last_complete(output_dir)
    for folder, reason in search.rejected.items():
        _log.warning("%s Kept as %s.", reason, set_aside(folder).name)
    if search.path is None:
        return Choice(path=None, message=f"No complete checkpoint in {output_dir}: starting fresh.")
    return Choice(path=str(search.path), message=f"Resuming from {search.path}.")


def check_same_adapter(checkpoint: Path, config: PeftConfig) -> None:
    """Compare a checkpoint's adapter with the one that is to be trained on.

    Raises:
        UserError: When they differ; names the fields.
    """
    path = checkpoint / "adapter_config.json"
    if not path.is_file():
        return
    saved: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    wanted = json.loads(json.dumps(config.to_dict(), default=_as_json))
    differing = [
        f"{name}: {saved[name]!r} there, {wanted[name]!r} here"
        for name in sorted(saved.keys() & wanted.keys() - _NOT_COMPARED)
        if _comparable(saved[name]) != _comparable(wanted[name])
    ]
    if differing:
        raise UserError(
            f"The checkpoint {checkpoint} holds another adapter ({'; '.join(differing)}). "
            "Use the settings it was trained with, or choose another output_dir."
        )


def check_same_sharding(checkpoint: Path, sharded: bool) -> None:
    """Refuse to load an adapter's checkpoint in a run that is sharded where the other was not.

    Raises:
        UserError: only one of them is.
    """
    if stored_by_fsdp(checkpoint) != sharded:
        raise UserError(
            f"{checkpoint} was written by a run with fsdp={not sharded}, and this one has fsdp={sharded}. "
            "Resume an adapter as it was trained, or go on from its folder with start_from."
        )


def changed_settings(checkpoint: Path, facts: dict[str, Any]) -> list[str]:
    """What differs from the run that a checkpoint was written by, a phrase each; it is used as it is now.

    Args:
        checkpoint: a complete one.
        facts: of this run; ``settings`` by dotted names, ``data`` as what the records are known by.

    Raises:
        UserError: the run cannot go on with a setting as it is now.
    """
    saved = read_manifest(checkpoint)["run"]
    was, now = saved.get("settings", {}), json.loads(json.dumps(facts.get("settings", {}), default=str))
    differing = sorted(
        name
        for name in (was.keys() | now.keys() if was else set())
        if was.get(name) != now.get(name) and name not in _OF_THIS_START
    )
    for what, names in _fixed(was | saved, now | facts, differing):
        raise _refusal(checkpoint, what, names, was, now)
    return [f"{name}: {was.get(name)!r} -> {now.get(name)!r}" for name in differing]


def _fixed(
    there: dict[str, Any], here: dict[str, Any], differing: list[str]
) -> Iterator[tuple[str, list[str]]]:
    """What a run cannot go on with as it is now, and the settings that say so."""
    for name, what in _REFUSED.items():
        before, now = there.get(name), here.get(name)
        if before is not None and now is not None and before != json.loads(json.dumps(now)):
            yield what, [key for key in differing if key == name or key.startswith(f"{name}.")]
    if frozen := [name for name in differing if name.startswith("tuning.")]:
        yield "what trains", frozen
    kind = here.get("training.lr_scheduler_type")
    if kind in _STATEFUL and (rates := [one for one in differing if one.removeprefix("training.") in _RATES]):
        yield f"a rate under lr_scheduler_type={kind!r}", rates


def changes_rates(changes: list[str]) -> bool:
    """Whether one of the changed settings is what an optimiser's saved state would bring back."""
    names = {change.partition(":")[0].removeprefix("training.") for change in changes}
    return not names.isdisjoint({*_RATES, "base_learning_rate", "per_device_train_batch_size"})


def flattened(content: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings and lists as one, with dotted names."""
    items = enumerate(content) if isinstance(content, list) else content.items()
    flat: dict[str, Any] = {}
    for name, value in items:
        if isinstance(value, dict | list) and value:
            flat |= flattened(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def warn_about_changes(checkpoint: Path, facts: dict[str, Any]) -> None:
    """Warn when a run continues with another batch layout, and so sees other batches."""
    saved = read_manifest(checkpoint)["run"]
    same_steps = _rows_per_step(saved) is not None and _rows_per_step(saved) == _rows_per_step(facts)
    for name, value in facts.items():
        if name in ("settings", "base", *_REFUSED):
            continue
        if name in saved and saved[name] != value and not (same_steps and name in _STEP):
            _log.warning(
                "%s was %r when %s was written and is %r now: the run continues, but sees other batches.",
                name,
                saved[name],
                checkpoint.name,
                value,
            )


def _refusal(
    checkpoint: Path, what: str, names: list[str], was: dict[str, Any], now: dict[str, Any]
) -> UserError:
    listed = "; ".join(
        f"{name}: {was[name]!r} there, {now.get(name)!r} here" for name in names if name in was
    )
    return UserError(
        f"{checkpoint} was written with another setting of {what}{f' ({listed})' if listed else ''}. "
        "Use the one it was trained with, or another output_dir; an adapter can go on from its folder with "
        "start_from."
    )


def _rows_per_step(facts: dict[str, Any]) -> int | None:
    """Rows of an optimiser step, where only their number decides which they are; None where more does."""
    plain = (
        facts.get("batching") == "rows" and facts.get("epoch_parts") == 1 and facts.get("types") == "mixed"
    )
    if not plain or facts.get("groups") or not all(isinstance(facts.get(name), int) for name in _STEP):
        return None
    return math.prod(facts[name] for name in _STEP)


def _comparable(value: Any) -> Any:
    """Lists of names are compared without order, since PEFT keeps them as sets."""
    return sorted(value, key=str) if isinstance(value, list) else value


def _as_json(value: Any) -> Any:
    return sorted(value) if isinstance(value, set | frozenset) else str(value)
