"""Values of settings, checked and converted by their types and limits before anything is created.

A mapping as YAML and the command line give it becomes one whose plain values have the type of their field:
texts of the command line are read as YAML where the field is no text. The first value that does not fit is
named with its dotted place and what is accepted. What is unusual: dataclasses are not created, because some
look at the machine when they are; types that are none of the usual ones pass as they are. Which keys exist
says ``schema``.
"""

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from enum import EnumType
from types import NoneType
from typing import Any, Literal

from llama_adapter.class_paths import is_declared, registered_class
from llama_adapter.errors import UserError
from llama_adapter.limits import Limit, is_finite
from llama_adapter.schema import describe_type, field_types, is_union, parts, split_limits
from llama_adapter.yaml_text import parse_yaml

_TRUE, _FALSE = {"true", "yes", "on"}, {"false", "no", "off"}
CLASS_PATH = "class_path"
INIT_ARGS = "init_args"
_QUOTED = 100
"""Longest quotation of a value."""


class _Mismatch(Exception):
    """A value is not of a type."""


def read_values(
    content: Mapping[str, Any],
    settings: type,
    prefix: str = "",
    limits: Mapping[str, Limit] | None = None,
) -> dict[str, Any]:
    """The values of one dataclass, converted.

    Args:
        content: a mapping whose keys are fields.
        settings: the dataclass.
        prefix: where the mapping stands, with a trailing dot.
        limits: of its fields, as an enclosing dataclass has them; dotted names are of fields inside.

    Raises:
        UserError: a value has another type or is beyond its limits, or no kind of settings has the keys.
    """
    limits = {**getattr(settings, "LIMITS", {}), **(limits or {})}
    types = field_types(settings)
    read = {}
    for key, value in content.items():
        inner = {
            name.partition(".")[2]: limit for name, limit in limits.items() if name.startswith(f"{key}.")
        }
        read[key] = _read(value, types[key], f"{prefix}{key}", inner)
        if key in limits and read[key] is not None and not _holds(limits[key], read[key]):
            raise _refusal(f"{prefix}{key}", value, limits[key].words)
    return read


def missing_options(content: Mapping[str, Any], settings: type, prefix: str = "") -> list[str]:
    """Options without a default that a mapping does not give."""
    missing: list[str] = []
    types = field_types(settings)
    required = {field.name for field in dataclasses.fields(settings) if _is_required(field)}
    for name, hint in types.items():
        inside, value = parts(hint), content.get(name)
        if inside.is_group and (name in required or isinstance(value, Mapping)):
            inner = value if isinstance(value, Mapping) else {}
            if CLASS_PATH not in inner and not (value is None and NoneType in inside.plain):
                missing += missing_options(inner, inside.groups[0], f"{prefix}{name}.")
        elif name in required and name not in content:
            missing.append(prefix + name)
    return missing


def check_ranges(settings: Any) -> None:
    """Checks the numbers of a dataclass that a program made, without converting anything.

    Raises:
        UserError: a value is beyond its limits, or not finite.
    """
    limits = getattr(settings, "LIMITS", {})
    for name, hint in field_types(type(settings)).items():
        value = getattr(settings, name)
        allowed = [limits[name]] if name in limits else list(_limits_for(value, hint))
        for limit in allowed:
            if value is not None and not _holds(limit, value):
                raise UserError(f"{name} is {_quote(value)}. Use {limit.words}.")
        if isinstance(value, int | float) and not is_finite(value):
            raise UserError(f"{name} is {_quote(value)}. Use {describe_type(hint)}.")


def kind_of(content: Mapping[str, Any], groups: Sequence[type], place: str) -> type | None:
    """The dataclass among several that a mapping describes: the one it names, or the first with all keys.

    Args:
        content: with ``class_path``, or fields of one of them.
        groups: the alternatives.
        place: where it stands.

    Raises:
        UserError: a class is named that is none of them.
    """
    if CLASS_PATH in content:
        return registered_class(content[CLASS_PATH], groups, f"{place}.{CLASS_PATH}")
    having = [group for group in groups if content.keys() <= field_types(group).keys()]
    return next((group for group in having if _names_fit(content, group)), next(iter(having), None))


def _quote(value: Any) -> str:
    """A value as it is written in messages."""
    text = repr(value)
    return text if len(text) <= _QUOTED else f"{text[:_QUOTED]}..."


def _names_fit(content: Mapping[str, Any], group: type) -> bool:
    """Whether values of fields with a fixed list of names are among them, such as a ``kind``."""
    types = field_types(group)
    fixed = [name for name in content if typing.get_origin(types[name]) is Literal]
    return all(content[name] in typing.get_args(types[name]) for name in fixed)


def _is_required(field: dataclasses.Field) -> bool:
    return (
        field.init and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    )


def _limits_for(value: Any, hint: Any) -> Sequence[Limit]:
    """The limits of that member of a type which a value belongs to."""
    bare, limits = split_limits(hint)
    if is_union(bare):
        return [limit for member in typing.get_args(bare) for limit in _limits_for(value, member)]
    kinds: dict[Any, tuple[type, ...]] = {int: (int,), float: (int, float), str: (str,)}
    return limits if isinstance(value, kinds.get(bare, ())) and not isinstance(value, bool) else ()


def _holds(limit: Limit, value: Any) -> bool:
    try:
        return bool(limit.holds(value))
    except TypeError:  # of another member of a union
        return False


def _refusal(place: str, value: Any, words: str) -> UserError:
    return UserError(f"--{place}: got {_quote(value)}. Use {words}.")


def _read(value: Any, hint: Any, place: str, limits: Mapping[str, Limit]) -> Any:
    """One value, or the values of one dataclass or of a list of them."""
    inside = parts(hint)
    if inside.groups and isinstance(value, str) and str not in inside.plain:
        value = as_yaml(value, place)
    if isinstance(value, Mapping) and _takes_group(hint) and not inside.open:
        return _read_group(value, inside.groups, place, limits)
    if inside.groups and inside.listed and isinstance(value, list):
        item_hint = next(typing.get_args(member)[0] for member in _members(hint) if parts(member).listed)
        return [_read(item, item_hint, f"{place}.{number}", limits) for number, item in enumerate(value)]
    try:
        return _convert(value, hint)
    except _Mismatch:
        raise _refusal(place, value, _words(value, hint)) from None


def _words(value: Any, hint: Any) -> str:
    """What is accepted; of a number too large for any field, that it must be smaller."""
    number = _loaded(value)
    if isinstance(number, int | float) and not is_finite(number):
        return "a finite number" if isinstance(number, float) else "a number below 2^63"
    return describe_type(hint)


def _members(hint: Any) -> Sequence[Any]:
    """The alternatives of a union, without limits; a type that is none is its own only one."""
    bare, _ = split_limits(hint)
    return [split_limits(member)[0] for member in typing.get_args(bare)] if is_union(bare) else [bare]


def _takes_group(hint: Any) -> bool:
    """Whether a dataclass may stand there itself, not in a list."""
    return any(isinstance(member, type) and dataclasses.is_dataclass(member) for member in _members(hint))


def as_yaml(text: str, place: str) -> Any:
    """A text of the command line as YAML.

    Raises:
        UserError: it is none; the option is named.
    """
    try:
        return parse_yaml(text)
    except UserError as error:
        raise UserError(f"--{place}: {error}") from error


def _read_group(
    value: Mapping[str, Any], groups: Sequence[type], place: str, limits: Mapping[str, Limit]
) -> dict[str, Any]:
    kind = kind_of(value, groups, place)
    if kind is None:
        raise UserError(
            f"'{place}' has the keys {', '.join(value)}, which no kind of it has together: "
            f"{', '.join(group.__name__ for group in groups)}. Use keys of one of them."
        )
    if CLASS_PATH not in value:
        return read_values(value, kind, f"{place}.", limits)
    given = value.get(INIT_ARGS) or {}
    if not isinstance(given, Mapping) or (extra := value.keys() - {CLASS_PATH, INIT_ARGS}):
        wrong = f"init_args {given!r}" if not isinstance(given, Mapping) else f"{sorted(extra)} beside it"
        raise UserError(f"'{place}' has {CLASS_PATH} and {wrong}. Use a mapping init_args for its settings.")
    if unknown := given.keys() - field_types(kind).keys():
        names = ", ".join(sorted(field_types(kind)))
        raise UserError(
            f"'{place}.init_args.{min(unknown)}' is no setting of {kind.__name__}. Use one of: {names}."
        )
    read = read_values(given, kind, f"{place}.init_args.", limits)
    return {CLASS_PATH: f"{kind.__module__}.{kind.__qualname__}", INIT_ARGS: read}


def _convert(value: Any, hint: Any) -> Any:
    """A value as its type wants it.

    Raises:
        _Mismatch: it is none of it.
    """
    bare, limits = split_limits(hint)
    converted = _convert_bare(value, bare)
    if converted is not None and not all(_holds(limit, converted) for limit in limits):
        raise _Mismatch
    return converted


def _convert_bare(value: Any, hint: Any) -> Any:
    origin = typing.get_origin(hint)
    if is_union(hint):
        return _convert_union(value, typing.get_args(hint))
    if hint in _PLAIN:
        return _PLAIN[hint](value)
    if origin is Literal:
        return _member(value, typing.get_args(hint))
    if origin in (list, dict) or hint in (list, dict):
        return _convert_container(value, hint)
    if isinstance(hint, EnumType):
        if not isinstance(value, hint) and not (isinstance(value, str) and value in hint.__members__):
            raise _Mismatch
        return value
    value = _loaded(value)
    _refuse_class(value)
    return value


def _convert_union(value: Any, members: Sequence[Any]) -> Any:
    """The first member of a union that takes a value; texts stay texts only where nothing else does."""
    for member in sorted(members, key=lambda member: split_limits(member)[0] is str):
        try:
            return _convert(value, member)
        except _Mismatch:
            continue
    raise _Mismatch


def _convert_container(value: Any, hint: Any) -> Any:
    kind = typing.get_origin(hint) or hint
    value = _loaded(value)
    if not isinstance(value, kind):
        raise _Mismatch
    inner = typing.get_args(hint)
    if kind is list:
        return [_convert(item, inner[0]) for item in value] if inner else value
    _refuse_class(value)
    return (
        {_convert(key, inner[0]): _convert(item, inner[1]) for key, item in value.items()} if inner else value
    )


def _refuse_class(value: Any) -> None:
    """No class but a registered one may be named where any value may stand: the parser would import it.

    Raises:
        UserError: one is.
    """
    if isinstance(value, Mapping):
        if CLASS_PATH in value and not is_declared(value[CLASS_PATH]):
            raise UserError(
                f"{CLASS_PATH} is {_quote(value[CLASS_PATH])} where no class can stand. Leave it out."
            )
        for item in value.values():
            _refuse_class(item)
    elif isinstance(value, list):
        for item in value:
            _refuse_class(item)


def _loaded(value: Any) -> Any:
    """A text as the YAML value it may stand for; itself where it is none."""
    if not isinstance(value, str):
        return value
    try:
        return parse_yaml(value)
    except UserError:
        return value


def _truth(value: Any) -> bool:
    if isinstance(value, str) and value.lower() in _TRUE | _FALSE:
        return value.lower() in _TRUE
    if not isinstance(value, bool):
        raise _Mismatch
    return value


def _whole(value: Any) -> int:
    value = _loaded(value)
    if not isinstance(value, int) or isinstance(value, bool) or not is_finite(value):
        raise _Mismatch
    return value


def _number(value: Any) -> float:
    value = _loaded(value)
    if not isinstance(value, int | float) or isinstance(value, bool) or not is_finite(value):
        raise _Mismatch
    return float(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _Mismatch
    return value


def _nothing(value: Any) -> None:
    if value is not None and value not in ("null", "~"):
        raise _Mismatch


def _member(value: Any, members: Sequence[Any]) -> Any:
    """The member of a list of values that is meant."""
    for candidate in (value, _loaded(value)):
        for member in members:
            if type(member) is type(candidate) and member == candidate:
                return member
    raise _Mismatch


_PLAIN = {bool: _truth, int: _whole, float: _number, str: _text, NoneType: _nothing}
