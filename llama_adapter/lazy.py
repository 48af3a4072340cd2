"""Import on demand: names that load their module at their first use, optional packages, actions at an import.

Unusual: this is what keeps `llama-adapter --help` instant although `import llama_adapter` is all that PEFT
needs to know the method. The action runs at once when the module is already there, otherwise right behind the
module's own code. It knows nothing of what it imports.
"""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from llama_adapter.errors import UserError


def lazy_attributes(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """A `__getattr__` for a package whose public names live in modules that are slow to import.

    Args:
        package: the package's own name, for the message.
        modules: public name -> module that defines it.
    """

    def attribute(name: str) -> Any:
        if name not in modules:
            raise AttributeError(
                f"module {package!r} has no attribute {name!r}. Use one of: {sorted(modules)}."
            )
        return getattr(importlib.import_module(modules[name]), name)

    return attribute


def when_imported(module: str, action: Callable[[], object]) -> None:
    """Calls `action` once, as soon as the module has been imported; at once if that has happened already.

    Args:
        module: a top-level module.
        action: takes nothing; what it raises appears at the import.
    """
    if module in sys.modules:
        action()
    else:
        sys.meta_path.insert(0, _Watch(module, action))


def needed(module: str, package: str, user: str = "Images", extra: str = "vision") -> Any:
    """A module of an optional package.

    Args:
        module: what to import.
        package: its name for pip.
        user: what needs it, in the plural.
        extra: the extra of this distribution that brings it.

    Raises:
        UserError: the package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"{user} need the package {package!r}, which cannot be imported ({error}). "
            f"Run: pip install 'llama-adapter[{extra}]'"
        ) from error


class _Watch(MetaPathFinder):
    """Stands first in line, waits for one name, and leaves when it comes."""

    def __init__(self, module: str, action: Callable[[], object]) -> None:
        self.module = module
        self.action = action

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        """The module's ordinary spec, with a loader that also runs the action; None for any other module."""
        if fullname != self.module:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _LoadThenAct(spec.loader, self.action)
        return spec


class _LoadThenAct(Loader):
    """The module's own loader, followed by the action."""

    def __init__(self, loader: Any, action: Callable[[], object]) -> None:
        self.loader = loader
        self.action = action

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """As the module's own loader does."""
        module: ModuleType | None = self.loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Runs the module's code, gives it its own loader back, then acts."""
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        module.__loader__ = self.loader
        self.loader.exec_module(module)
        self.action()
