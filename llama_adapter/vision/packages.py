"""Optional packages of this part, imported where they are needed."""

import importlib
from typing import Any

from llama_adapter.errors import UserError


def needed(module: str, package: str) -> Any:
    """A module of an optional package.

    Args:
        module: what to import.
        package: its name for pip.

    Raises:
        UserError: the package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"Images need the package {package!r}, which cannot be imported ({error}). "
            "Run: pip install 'llama-adapter[vision]'"
        ) from error
