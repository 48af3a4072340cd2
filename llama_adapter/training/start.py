"""Where a run's weights come from: an adapter folder of an earlier phase.

What the folder has is loaded, what only this run has stays as it is at its start: so a second phase may add
biases, scales or LoRA to what a first one learned. What is unusual: nothing of the folder is left out in
silence. Optimiser and schedule start anew; to continue a run that was stopped there is ``training.resume``.
"""

import json
import logging
from pathlib import Path
from typing import Any

from peft import load_peft_weights, set_peft_model_state_dict

from llama_adapter.conditioning.files import CONDITIONER_FILE
from llama_adapter.errors import UserError
from llama_adapter.file_formats.model_folder import check_adapter_files
from llama_adapter.models import check_adapter
from llama_adapter.training.parts import TrainedParts
from llama_adapter.whole_loads import judging, not_finite

_log = logging.getLogger(__name__)

_SAME = ("peft_type", "prompt_length", "gate", "gate_activation")
"""Settings that say what tensors mean without showing in all their shapes."""


def start_from(folder: str | Path, parts: TrainedParts) -> None:
    """Load adapter and conditioner of an earlier phase.

    Args:
        folder: an adapter folder, of ``train`` or ``convert``.
        parts: of the model to be trained.

    Raises:
        UserError: there is none, or it has something that this run's adapter has not.
    """
    check_adapter(folder)
    check_adapter_files(folder)
    adapter = parts.adapter
    if adapter is None:
        raise UserError(
            f"start_from={str(folder)!r} is for adapters, not for {type(parts.language_model)}. Leave it out."
        )
    _check_settings(Path(folder), adapter.active_peft_config.to_dict())
    tensors = load_peft_weights(str(folder), device="cpu")
    if broken := not_finite(tensors):
        name, reason = next(iter(broken.items()))
        raise UserError(
            f"The adapter in {str(folder)!r} is broken: {name} {reason}. Use a checkpoint of before."
        )
    try:
        with judging():  # an earlier phase may have had fewer parts
            result: Any = set_peft_model_state_dict(adapter, tensors, adapter_name=adapter.active_adapter)
    except RuntimeError as error:
        raise UserError(
            f"The adapter in {str(folder)!r} does not fit: {' '.join(str(error).split())} "
            "Use the settings under `adapter` that it was trained with."
        ) from error
    if left := sorted(result.unexpected_keys):
        raise UserError(
            f"{len(left)} tensors of {str(folder)!r}, such as {left[0]!r}, have no place in this run's "
            "adapter. Use settings under `adapter` that have at least the parts of the earlier phase."
        )
    has_conditioner = (Path(folder) / CONDITIONER_FILE).is_file()
    if has_conditioner:
        parts.load_beside(Path(folder))
    if has_conditioner != (parts.conditioner is not None):
        _log.warning(
            "%s has %s conditioner: %s.",
            folder,
            "a" if has_conditioner else "no",
            "this run has none and leaves it" if has_conditioner else "this run's starts from random weights",
        )


def _check_settings(folder: Path, wanted: dict[str, object]) -> None:
    """Refuse an adapter whose tensors mean something else."""
    saved = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    for name in _SAME:
        if saved.get(name, wanted.get(name)) != wanted.get(name):
            raise UserError(
                f"The adapter in {str(folder)!r} has {name}={saved[name]!r}, this run {wanted[name]!r}. "
                f"Set adapter.{name} as it was."
            )
