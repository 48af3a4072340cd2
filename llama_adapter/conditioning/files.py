"""A conditioner in a folder: its tensors, and its settings in the folder's ``config.json``.

The folder is usually that of an adapter; ``config.json`` may hold settings of other parts beside
(``write_settings``). Still read are the file of their own that settings had at first, and the tensors that
``convert`` writes of official V2 files, whose settings are read off the shapes.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from llama_adapter.conditioning.base import Conditioner, make_conditioner
from llama_adapter.conditioning.visual_queries import PUBLISHED_HEADS, VisualQueriesConfig
from llama_adapter.file_formats.json_file import read_object
from llama_adapter.file_formats.safetensors_file import read_tensors
from llama_adapter.whole_loads import Misfit, not_finite, refuse

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


def load_conditioner(
    folder: str | Path, num_heads: int = PUBLISHED_HEADS, allow_misfit: Sequence[str] = ()
) -> Conditioner:
    """The conditioner of a folder.

    Args:
        folder: as ``save_conditioner`` or ``convert`` wrote it.
        num_heads: attention heads where the folder has no settings.
        allow_misfit: names and patterns of tensors that need not fit.

    Raises:
        UserError: a file is missing or damaged, or tensors do not fit the settings.
    """
    path, options = Path(folder) / CONDITIONER_FILE, read_settings(folder, "conditioner")
    tensors = read_tensors(path, "Use a folder that save_conditioner or convert wrote.")
    options = options or asdict(VisualQueriesConfig.of_tensors(tensors, num_heads))
    conditioner = make_conditioner(options)
    wanted = {name: tuple(tensor.shape) for name, tensor in conditioner.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    misfit = replace(Misfit.of_shapes(wanted, found), not_finite=not_finite(tensors))
    refuse(misfit, allow_misfit, str(path), f"the settings in its {SETTINGS_FILE}")
    left = {name: tensor for name, tensor in tensors.items() if wanted.get(name) == found[name]}
    conditioner.load_state_dict(left, strict=False)
    return conditioner


def _content(path: Path) -> dict[str, Any]:
    """What a JSON file holds; nothing where there is none.

    Raises:
        UserError: it is damaged.
    """
    if not path.is_file():
        return {}
    return read_object(path, "Use the file that was saved with the tensors beside it.")
