"""What a settings dataclass accepts: its dotted options, their types in words, and whether a mapping fits.

Unusual: it reads only the annotations, nothing is created, because some settings look at the machine when
they are. A field may hold one dataclass, a choice of several, or a list of them. It does not know files or
command lines.
"""

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import EnumType
from functools import cache
from types import NoneType
from typing import Annotated, Any, Literal

from llama_adapter.errors import UserError
from llama_adapter.limits import Limit

_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", NoneType: "null"}
_OTHER_CLASS = {"class_path", "init_args"}
"""Keys by which jsonargparse takes a class that the annotation does not name."""


@dataclass(frozen=True)
class Parts:
    """What a type is made of, looking through unions and lists."""

    groups: tuple[type, ...] = ()
    """The dataclasses in it."""
    plain: tuple[Any, ...] = ()
    """Everything else in it."""
    listed: bool = False
    """Whether there is a list in it."""

    @property
    def open(self) -> bool:
        """Whether any mapping may stand there, so that its keys cannot be checked."""
        return any(member in (Any, dict) or typing.get_origin(member) is dict for member in self.plain)

    @property
    def is_group(self) -> bool:
        """Whether it is one dataclass (or null), whose fields are options of their own."""
        return len(self.groups) == 1 and not self.listed and set(self.plain) <= {NoneType}


def parts(hint: Any) -> Parts:
    """Takes a type apart."""
    hint, _ = split_limits(hint)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return Parts(groups=(hint,))
    is_list = typing.get_origin(hint) is list
    if not is_list and not is_union(hint):
        return Parts(plain=(hint,))
    inner = [parts(member) for member in typing.get_args(hint)]
    return Parts(
        groups=tuple(group for part in inner for group in part.groups),
        plain=tuple(member for part in inner for member in part.plain),
        listed=is_list or any(part.listed for part in inner),
    )


def is_union(hint: Any) -> bool:
    """Whether a type is `A | B`, however it was written."""
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def split_limits(hint: Any) -> tuple[Any, tuple[Limit, ...]]:
    """A type without its limits, and these."""
    if typing.get_origin(hint) is not Annotated:
        return hint, ()
    bare, *notes = typing.get_args(hint)
    return bare, tuple(note for note in notes if isinstance(note, Limit))


def field_types(*settings: type) -> Mapping[str, Any]:
    """The resolved type, with its limits, of every init field of a dataclass or of several taken together."""
    found: dict[str, Any] = {}
    for group in reversed(settings):
        found |= _types_of(group)
    return found


@cache
def _types_of(group: type) -> dict[str, Any]:
    hints = typing.get_type_hints(group, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(group) if field.init}


def option_types(*settings: type, prefix: str = "", deep: bool = False) -> dict[str, Any]:
    """Every dotted option of a dataclass with its type.

    Args:
        settings: the dataclass, or several alternatives.
        prefix: stands before each name.
        deep: also name the fields of listed and of alternative dataclasses, which are not options.
    """
    options: dict[str, Any] = {}
    for name, hint in field_types(*settings).items():
        inside = parts(hint)
        if not inside.is_group:
            options[prefix + name] = hint
        if inside.is_group or deep:
            options |= option_types(*inside.groups, prefix=f"{prefix}{name}.", deep=deep)
    return options


def check_keys(content: Mapping[Any, Any], *settings: type, prefix: str = "") -> None:
    """Checks that every key of `content` is a field of the dataclass, also inside nested ones and lists.

    Args:
        content: a mapping as YAML gives it.
        settings: the dataclass, or several alternatives.
        prefix: where the mapping stands, with a trailing dot.

    Raises:
        UserError: a key does not exist, has no value, or holds a value where a mapping belongs.
    """
    known = field_types(*settings)
    for key, value in content.items():
        place = f"{prefix}{key}"
        if key not in known:
            raise UserError(
                f"'{place}' is not a setting. {suggest(str(key), known)} Run with --help for all."
            )
        inside = parts(known[key])
        if value is None and not {Any, NoneType} & set(inside.plain):
            raise UserError(f"'{place}' has no value. Use {describe_type(known[key])}, or remove it.")
        if inside.groups and not inside.open:
            items = value if inside.listed and isinstance(value, list) else [value]
            for number, item in enumerate(items):
                _check_item(item, inside, f"{place}.{number}" if items is value else place)


def check_option(name: str, *settings: type) -> None:
    """Checks that a dotted name is an option, a group of options, or a key of a mapping.

    Raises:
        UserError: it is none of these; the nearest option is suggested.
    """
    options = option_types(*settings, deep=True)
    enclosing = _enclosing(name)
    if name in options or any(name in _enclosing(option) for option in options):
        return
    if {"help", *_OTHER_CLASS} & set(name.split(".")) or any(
        option in options and parts(options[option]).open for option in enclosing
    ):
        return
    raise UserError(f"'--{name}' is not an option. {suggest(name, options)} Run with --help for all.")


def describe_type(hint: Any) -> str:
    """What a user may write for a value of this type, in words."""
    _, limits = split_limits(hint)
    if limits:
        return " that is ".join(limit.words for limit in limits)
    arguments = typing.get_args(hint)
    if hint in _WORDS:
        return _WORDS[hint]
    if is_union(hint):
        return " or ".join(dict.fromkeys(map(describe_type, arguments)))
    if typing.get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if typing.get_origin(hint) is list:
        return f"a list, each item {describe_type(arguments[0])}"
    if isinstance(hint, EnumType):
        return f"one of {', '.join(hint.__members__)}"
    return f"a {hint.__name__}" if isinstance(hint, type) and not arguments else str(hint)


def suggest(name: str, known: Iterable[str]) -> str:
    """'Did you mean ...?', or the whole list where nothing is near."""
    known = sorted(known)
    last_words = {entry.rsplit(".", 1)[-1]: entry for entry in reversed(known)}
    last_word = name.rsplit(".", 1)[-1]
    near = [last_words[last_word]] if last_word in last_words else difflib.get_close_matches(name, known, n=1)
    near = near or [last_words[word] for word in difflib.get_close_matches(last_word, last_words, n=1)]
    return f"Did you mean '{near[0]}'?" if near else f"Use one of: {', '.join(known)}."


def _check_item(item: Any, inside: Parts, place: str) -> None:
    """One value where a dataclass may stand."""
    if isinstance(item, dict):
        if not _OTHER_CLASS & set(item):
            check_keys(item, *inside.groups, prefix=f"{place}.")
    elif type(item) not in inside.plain:
        names = ", ".join(field_types(*inside.groups))
        raise UserError(f"'{place}' is {item!r}. Use a mapping with some of the keys {names}.")


def _enclosing(name: str) -> list[str]:
    """`a.b.c` -> `a.b`, `a`."""
    return [name.rsplit(".", depth)[0] for depth in range(1, name.count(".") + 1)]
