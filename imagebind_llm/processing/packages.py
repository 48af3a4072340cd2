"""Optional packages of the loaders, imported where they are needed."""

import importlib
from typing import Any

from llama_adapter.errors import UserError


def needed(module: str, what: str, extra: str) -> Any:
    """A module of an optional package.

    Args:
        module: what to import.
        what: what needs it, as the beginning of a sentence.
        extra: the extra of this distribution that brings it.

    Raises:
        UserError: the package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"{what} need the package {module.partition('.')[0]!r}, which cannot be imported ({error}). "
            f"Run: pip install 'llama-adapter[{extra}]'"
        ) from error
