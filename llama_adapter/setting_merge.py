"""How settings that are given later change those given before.

A mapping for a group of settings is merged into what is there, key by key. A group that has several kinds,
such as ``adapter``, is merged where the new keys are of the same kind, and replaced where they are of
another. Lists and plain mappings are replaced; ``--name+ value`` appends to a list. Values are not checked
here.
"""

from collections.abc import Mapping
from typing import Any

from llama_adapter.schema import field_types, parts
from llama_adapter.values import CLASS_PATH, INIT_ARGS, as_yaml, kind_of


def merge(content: dict[str, Any], later: Mapping[str, Any], settings: type, prefix: str = "") -> None:
    """Changes `content` as later settings say.

    Args:
        content: settings so far; is changed.
        later: what comes on top.
        settings: the dataclass that both are of.
        prefix: where they stand, with a trailing dot.

    Raises:
        UserError: a class is named that is no kind of a setting.
    """
    types = field_types(settings)
    for key, value in later.items():
        inside, before = parts(types.get(key, Any)), content.get(key)
        if inside.groups and not inside.listed and isinstance(before, Mapping) and isinstance(value, Mapping):
            content[key] = _merged_group(before, value, inside.groups, f"{prefix}{key}")
        else:
            content[key] = value


def set_option(content: dict[str, Any], name: str, value: Any, settings: type) -> None:
    """Changes `content` as one option of the command line says.

    Args:
        content: settings so far; is changed.
        name: dotted; a ``+`` at its end appends to a list.
        value: its text, or a list of texts.
        settings: the dataclass.

    Raises:
        UserError: a class is named that is no kind of a setting, or a mapping is no YAML.
    """
    first, _, rest = name.partition(".")
    inside = parts(field_types(settings).get(first.removesuffix("+"), Any))
    if not rest:
        if inside.groups and isinstance(value, str):
            value = as_yaml(value, name)
        if first.endswith("+"):
            content[first[:-1]] = _appended(content.get(first[:-1]), value, name)
        else:
            merge(content, {first: value}, settings)
        return
    before = content.get(first)
    group = dict(before) if isinstance(before, Mapping) else {}
    if not inside.groups:
        _set_plain(group, rest, as_yaml(value, name) if isinstance(value, str) else value)
    elif rest == CLASS_PATH:
        group = dict(_merged_group(group, {CLASS_PATH: value}, inside.groups, first))
    elif CLASS_PATH in group:
        kind = kind_of(group, inside.groups, first) or inside.groups[0]
        group[INIT_ARGS] = dict(group.get(INIT_ARGS) or {})
        set_option(group[INIT_ARGS], rest.removeprefix(f"{INIT_ARGS}."), value, kind)
    else:
        key = rest.partition(".")[0].removesuffix("+")
        kind = next((kind for kind in inside.groups if key in field_types(kind)), inside.groups[0])
        set_option(group, rest, value, kind)
    content[first] = group


def _merged_group(
    before: Mapping[str, Any], later: Mapping[str, Any], groups: tuple[type, ...], place: str
) -> Mapping[str, Any]:
    """One group of settings on top of another, or in place of it."""
    kind = kind_of(before, groups, place)
    named = CLASS_PATH in later
    given = (later.get(INIT_ARGS) or {}) if named else later
    same = (
        kind_of(later, groups, place) is kind if named else kind and given.keys() <= field_types(kind).keys()
    )
    if kind is None or not same or not isinstance(given, Mapping):
        return later
    merged = dict((before.get(INIT_ARGS) or {}) if CLASS_PATH in before else before)
    merge(merged, given, kind, f"{place}.")
    path = later.get(CLASS_PATH) or before.get(CLASS_PATH)
    return {CLASS_PATH: path, INIT_ARGS: merged} if path else merged


def _set_plain(content: dict[str, Any], name: str, value: Any) -> None:
    """Sets a dotted key of a mapping that may have any keys."""
    first, _, rest = name.partition(".")
    if rest:
        inner = content.get(first)
        content[first] = dict(inner) if isinstance(inner, Mapping) else {}
        _set_plain(content[first], rest, value)
    else:
        content[first] = value


def _appended(before: Any, value: Any, name: str) -> list[Any]:
    """A list with one more value, or with those of another list."""
    value = as_yaml(value, name) if isinstance(value, str) and value.startswith(("[", "{")) else value
    return [*(before or []), *(value if isinstance(value, list) else [value])]
