"""Import on demand: names that load their module at their first use, optional packages, actions at an import.

Unusual: this is what keeps `llama-adapter --help` instant although `import llama_adapter` is all that PEFT
needs to know the method. The action runs at once when the module is already there, otherwise right behind the
module's own code. It knows nothing of what it imports.
"""

import importlib
import sys
from collections.abc import Callable, Mapping
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, cast

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
        module: its full name.
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
    """Waits in the line of finders for one name, until a module of that name has been run.

    Many a program only asks whether a package is there, and never runs the spec that it is given; so a spec
    is no sign that the module comes, and each one brings the action along.
    """

    def __init__(self, module: str, action: Callable[[], object]) -> None:
        self.module = module
        self.action = action

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        """What the finders behind this one know, with a loader that also acts; None for any other module."""
        if fullname != self.module or self not in sys.meta_path:
            return None
        for finder in sys.meta_path[sys.meta_path.index(self) + 1 :]:
            find = getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = find(fullname, path, target) if find else None
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):  # a namespace without code has nothing to act behind
                    spec.loader = cast("Any", _LoadThenAct(spec.loader, self))
                return spec
        return None

    def act(self) -> None:
        """Leaves the line and acts, unless that has happened: a module may be run twice."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)
            self.action()


class _LoadThenAct:
    """The module's own loader, followed by the action; whatever else one asks a loader, its own answers."""

    def __init__(self, loader: Any, watch: _Watch) -> None:
        self._own = loader
        self._watch = watch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """As the module's own loader does."""
        module: ModuleType | None = self._own.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Runs the module's code, gives it its own loader back, then acts."""
        if module.__spec__ is not None:
            module.__spec__.loader = self._own
        module.__loader__ = self._own
        self._own.exec_module(module)
        self._watch.act()
