"""Models that see by themselves, without an adapter: found by their folder, opened by their own package.

A table of texts, so that the core imports no package that is built on it.
"""

from pathlib import Path

from llama_adapter.file_formats.json_file import read_object
from llama_adapter.models import BaseModelConfig
from llama_adapter.multimodal.sight import Seeing, named

WHOLE_MODELS = {"sphinx": "sphinx_ft.sight:open_model"}
"""``model_type`` in a folder's config.json -> `module:function` that loads the model."""


def is_whole(base: str | None) -> bool:
    """Whether a folder holds such a model.

    Args:
        base: a folder, or the name of a model on the hub, of which none is known to be one.

    Raises:
        UserError: the folder's settings are damaged.
    """
    return _opener(base) is not None


def open_whole(base: BaseModelConfig) -> Seeing:
    """The model of a folder for which ``is_whole`` holds.

    Raises:
        UserError: it cannot be loaded.
    """
    found: Seeing = named(_opener(base.name_or_path) or "")(base)
    return found


def _opener(base: str | None) -> str | None:
    path = Path(base or "").expanduser() / "config.json"
    if base is None or not path.is_file():
        return None
    return WHOLE_MODELS.get(str(read_object(path).get("model_type")))
