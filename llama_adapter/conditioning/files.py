"""A conditioner in a folder: its tensors beside its settings, usually beside an adapter.

``convert`` writes the tensors of official V2 files in the same place, without settings: these are then read
off the shapes.
"""

import json
from dataclasses import asdict
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from llama_adapter.conditioning.base import Conditioner, make_conditioner
from llama_adapter.conditioning.visual_queries import PUBLISHED_HEADS, VisualQueriesConfig
from llama_adapter.errors import UserError

CONDITIONER_FILE = "conditioner.safetensors"
SETTINGS_FILE = "conditioner_config.json"


def save_conditioner(conditioner: Conditioner, folder: str | Path) -> None:
    """Write tensors and settings into a folder, which is made where it does not exist."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in conditioner.state_dict().items()}
    save_file(tensors, folder / CONDITIONER_FILE)
    settings = json.dumps(asdict(conditioner.config), indent=2, sort_keys=True)
    (folder / SETTINGS_FILE).write_text(settings + "\n", encoding="utf-8")


def load_conditioner(folder: str | Path, num_heads: int = PUBLISHED_HEADS) -> Conditioner:
    """The conditioner of a folder.

    Args:
        folder: as ``save_conditioner`` or ``convert`` wrote it.
        num_heads: attention heads where the folder has no settings.

    Raises:
        UserError: a file is missing or damaged, or tensors do not fit the settings.
    """
    path, settings = Path(folder) / CONDITIONER_FILE, Path(folder) / SETTINGS_FILE
    try:
        tensors = load_file(path)
        options = json.loads(settings.read_text(encoding="utf-8")) if settings.exists() else None
    except (OSError, SafetensorError, ValueError) as error:
        raise UserError(
            f"The conditioner in {str(folder)!r} cannot be read: {error}. "
            "Use a folder that save_conditioner or convert wrote."
        ) from error
    conditioner = make_conditioner(options or VisualQueriesConfig.of_tensors(tensors, num_heads))
    try:
        conditioner.load_state_dict(tensors)
    except RuntimeError as error:
        raise UserError(
            f"The tensors of {str(path)!r} do not fit their settings: {' '.join(str(error).split())} "
            f"Use the {SETTINGS_FILE} that was written with them."
        ) from error
    return conditioner
