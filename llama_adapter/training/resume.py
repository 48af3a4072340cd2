"""Which checkpoint a run continues from, decided once and the same on all ranks.

What is unusual: damaged checkpoints are renamed, not deleted and not used, and a checkpoint of another
adapter or another batch layout is noticed before anything is loaded. This module does not load weights.
"""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate.utils.constants import FSDP_MODEL_NAME
from peft import PeftConfig

from llama_adapter.errors import UserError
from llama_adapter.training.checkpoint import defect, last_complete, read_manifest, set_aside

_log = logging.getLogger(__name__)

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


def check_same_sharing(checkpoint: Path, sharded: bool) -> None:
    """Compare how a checkpoint was written with how the run is shared out; the number of processes is free.

    Args:
        checkpoint: a complete one.
        sharded: whether this run shards its weights.

    Raises:
        UserError: one is sharded and the other is not.
    """
    if any(checkpoint.glob(f"{FSDP_MODEL_NAME}*")) != sharded:
        was, now = ("without", "with") if sharded else ("with", "without")
        raise UserError(
            f"The checkpoint {checkpoint} was written {was} fsdp, and this run is {now} it. Resume as it was "
            "written, on any number of processes, or use its weights as base.name_or_path of a new run."
        )


def warn_about_changes(checkpoint: Path, facts: dict[str, Any]) -> None:
    """Warn when a run continues with other data or another batch layout, and so sees other batches."""
    saved = read_manifest(checkpoint)["run"]
    for name, value in facts.items():
        if name in saved and saved[name] != value:
            _log.warning(
                "%s was %r when %s was written and is %r now: the run continues, but sees other batches.",
                name,
                saved[name],
                checkpoint.name,
                value,
            )


def _comparable(value: Any) -> Any:
    """Lists of names are compared without order, since PEFT keeps them as sets."""
    return sorted(value, key=str) if isinstance(value, list) else value


def _as_json(value: Any) -> Any:
    return sorted(value) if isinstance(value, set | frozenset) else str(value)
