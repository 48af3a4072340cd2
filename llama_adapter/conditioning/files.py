"""A conditioner in a folder: its tensors, and its settings in the folder's ``config.json``.

The folder is usually that of an adapter; ``config.json`` may hold settings of other parts beside
(``write_settings``). Still read are the file of their own that settings had at first, and the tensors that
``convert`` writes of official V2 files, whose settings are read off the shapes.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from llama_adapter.conditioning.base import Conditioner, make_conditioner
from llama_adapter.conditioning.visual_queries import PUBLISHED_HEADS, VisualQueriesConfig
from llama_adapter.errors import UserError

CONDITIONER_FILE = "conditioner.safetensors"
SETTINGS_FILE = "config.json"

_FIRST_FILES = {"conditioner": "conditioner_config.json", "vision": "vision_config.json"}
"""Part -> the file that its settings had before ``config.json`` carried them."""


def write_settings(folder: str | Path, settings: Mapping[str, Any]) -> None:
    """Put settings, by the name of their part, into a folder's ``config.json``; those of other parts stay.

    Raises:
        UserError: the file is damaged.
    """
    content = {**_content(Path(folder) / SETTINGS_FILE), **settings}
    text = json.dumps(content, indent=2, sort_keys=True)
    (Path(folder) / SETTINGS_FILE).write_text(text + "\n", encoding="utf-8")


def read_settings(folder: str | Path, part: str) -> dict[str, Any] | None:
    """The settings of one part of a folder; None where there are none.

    Args:
        folder: of an adapter.
        part: ``conditioner`` or ``vision``.

    Raises:
        UserError: a file is damaged.
    """
    found = _content(Path(folder) / SETTINGS_FILE).get(part)
    return found or _content(Path(folder) / _FIRST_FILES[part]) or None


def save_conditioner(conditioner: Conditioner, folder: str | Path) -> None:
    """Write tensors and settings into a folder, which is made where it does not exist."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in conditioner.state_dict().items()}
    save_file(tensors, folder / CONDITIONER_FILE)
    write_settings(folder, {"conditioner": asdict(conditioner.config)})


def has_conditioner(folder: str | Path) -> bool:
    """Whether a conditioner lies in a folder."""
    return (Path(folder) / CONDITIONER_FILE).is_file()


def load_conditioner(folder: str | Path, num_heads: int = PUBLISHED_HEADS) -> Conditioner:
    """The conditioner of a folder.

    Args:
        folder: as ``save_conditioner`` or ``convert`` wrote it.
        num_heads: attention heads where the folder has no settings.

    Raises:
        UserError: a file is missing or damaged, or tensors do not fit the settings.
    """
    path, options = Path(folder) / CONDITIONER_FILE, read_settings(folder, "conditioner")
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
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


def _content(path: Path) -> dict[str, Any]:
    """What a JSON file holds; nothing where there is none.

    Raises:
        UserError: it is damaged.
    """
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(
            f"{str(path)!r} cannot be read: {error}. Use the file that was saved with the tensors beside it."
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"{str(path)!r} holds {str(content)[:40]!r}. Use an object of settings.")
    return content
