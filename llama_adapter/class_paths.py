"""Classes of settings that a configuration may name by ``class_path``.

Taken are subclasses of what a setting is annotated with, as long as something has imported them already, and
the classes that packages register: those of this repository below, others by the entry-point group
``llama_adapter.settings``. Nothing else is imported, so a configuration cannot run a module.
"""

import difflib
import importlib
import re
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import entry_points

from llama_adapter.errors import UserError

ENTRY_POINT_GROUP = "llama_adapter.settings"
ELSEWHERE = ("imagebind_llm.BindConfig", "sphinx_ft.SphinxTuning")
"""Classes of packages that are built on this one, imported when they are named."""
_OF_PEFT = re.compile(r"peft\.\w+Config")


def registered_class(path: object, bases: Sequence[type], place: str) -> type:
    """The class that a configuration names.

    Args:
        path: dotted path, or the name of a class that is loaded.
        bases: what it must derive from.
        place: the setting, for the message.

    Raises:
        UserError: there is no such class among the registered ones.
    """
    loaded = {_path(known): known for base in bases for known in _subclasses(base)}
    for name, found in loaded.items():
        if path in (name, found.__name__) or (isinstance(path, str) and _is_public_name(path, found)):
            return found
    elsewhere = declared_paths()
    if path in elsewhere:
        module, _, name = str(path).rpartition(".")
        named = getattr(importlib.import_module(module), name)
        if isinstance(named, type) and issubclass(named, tuple(bases)):
            return named
    near = difflib.get_close_matches(str(path), [*loaded, *elsewhere], n=1)
    advice = f"Did you mean '{near[0]}'?" if near else "Use a class that a package registers."
    wanted = ", ".join(base.__name__ for base in bases)
    raise UserError(f"'{place}' is {path!r}, which is no registered kind of {wanted}. {advice}")


def declared_paths() -> list[str]:
    """Paths of the classes that packages register, whether they are imported or not."""
    return [*ELSEWHERE, *(entry.value.replace(":", ".") for entry in entry_points(group=ENTRY_POINT_GROUP))]


def is_declared(path: object) -> bool:
    """Whether a path is that of a class which a package registers, or of a configuration of PEFT."""
    return path in declared_paths() or (isinstance(path, str) and bool(_OF_PEFT.fullmatch(path)))


def _path(found: type) -> str:
    return f"{found.__module__}.{found.__qualname__}"


def _is_public_name(path: str, found: type) -> bool:
    """Whether a loaded module shows a class under this path, such as ``peft.LoraConfig``."""
    module, _, name = path.rpartition(".")
    return vars(sys.modules.get(module, object)).get(name) is found


def _subclasses(base: type) -> Iterator[type]:
    """A class and everything that derives from it."""
    yield base
    derived: list[type] = type.__subclasses__(base)
    for found in derived:
        yield from _subclasses(found)
