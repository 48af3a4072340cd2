"""From a YAML file and command-line options to one settings dataclass.

jsonargparse does the parsing; this file adds what a user meets at the edges of it: the YAML file is simply
the first argument, `--flag` alone means true, a list option may be repeated, and every rejected key is
answered with its dotted name, the values it accepts and the nearest name that exists. It does not know the
program's verbs.
"""

import dataclasses
import difflib
import json
import re
import types
import typing
from argparse import ArgumentError
from collections.abc import Iterable, Sequence
from enum import EnumType
from pathlib import Path
from types import NoneType
from typing import Any, Literal, TypeVar

import yaml
from jsonargparse import ActionConfigFile, ArgumentParser, get_loader, set_parsing_settings

from llama_adapter.errors import UserError

Settings = TypeVar("Settings")

_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", NoneType: "null"}

set_parsing_settings(docstring_parse_attribute_docstrings=True)


def parse(settings: type[Settings], arguments: Sequence[str], program: str) -> Settings:
    """Builds `settings` from an optional leading YAML file and `--dotted.option value` overrides.

    Args:
        settings: a dataclass; its fields are the options, nested dataclasses give dotted names.
        arguments: what stands on the command line after the program's own name.
        program: the program's name, for the help page.

    Raises:
        UserError: an option, key or value is not accepted, or the file cannot be read.
        SystemExit: after `--help` or `--print_config`, with code 0.
    """
    parser = _build_parser(settings, program)
    options = option_types(settings)
    files, given = _split_files(arguments)
    given = _complete_options(given, options)
    _check_options(given, options)
    contents = {path: read_yaml(path) for path in files}
    for path, content in contents.items():
        check_keys(settings, content, source=path)
    try:
        namespace = parser.parse_args([*(f"--config={path}" for path in files if contents[path]), *given])
        values = vars(parser.instantiate(namespace))
        values.pop("config")
        return settings(**values)
    except UserError:
        raise
    except (ArgumentError, TypeError, ValueError) as error:
        said = (
            str(error.__cause__) if isinstance(error.__cause__, UserError) else _reword(str(error), settings)
        )
        raise UserError(said) from error


def read_yaml(path: Path) -> dict[Any, Any]:
    """Reads a mapping of settings; an empty file is an empty mapping.

    Raises:
        UserError: the file is missing, is not UTF-8, is not YAML, or holds something other than a mapping.
    """
    try:
        content = get_loader("yaml")(path.read_text(encoding="utf-8"))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError(f"{path}: {reason}. Provide the path of a YAML file with settings.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}. Use UTF-8 text.") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML, {error}. Use 'key: value' lines.") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__}. Use 'key: value' lines at its top level.")
    return content


def check_keys(settings: type, content: dict[Any, Any], source: Path, prefix: str = "") -> None:
    """Checks that every key of `content` is a field of `settings`, also inside nested dataclasses and lists.

    Raises:
        UserError: a key does not exist, or a mapping or list stands where another kind of value belongs.
    """
    known = _field_types(settings)
    for key, value in content.items():
        if key not in known:
            said = f"{source}: '{prefix}{key}' is not a setting. {_suggest(str(key), known)}"
            raise UserError(f"{said} Run with --help for the others.")
        if value is None and not _accepts(known[key], NoneType):
            wanted = describe_type(known[key])
            raise UserError(f"{source}: '{prefix}{key}' has no value. Use {wanted}, or remove the line.")
        inner = _dataclass_in(known[key])
        if inner is None:
            continue
        for place, item in _members(known[key], value, f"{prefix}{key}"):
            if isinstance(item, dict):
                check_keys(inner, item, source, prefix=f"{place}.")
            elif not _accepts(known[key], type(item)):
                names = ", ".join(_field_types(inner))
                raise UserError(
                    f"{source}: '{place}' is {item!r}. Use a mapping with some of the keys {names}."
                )


def option_types(settings: type, prefix: str = "", into_lists: bool = False) -> dict[str, Any]:
    """Every dotted option of a dataclass with its type; `into_lists` adds the keys of listed dataclasses."""
    options: dict[str, Any] = {}
    for name, hint in _field_types(settings).items():
        inner = _dataclass_in(hint)
        is_list = typing.get_origin(hint) is list
        if inner is None or is_list:
            options[prefix + name] = hint
        if inner is not None and (into_lists or not is_list):
            options |= option_types(inner, prefix=f"{prefix}{name}.", into_lists=into_lists)
    return options


def describe_type(hint: Any) -> str:
    """What a user may write for a value of this type, in words."""
    arguments = typing.get_args(hint)
    if hint in _WORDS:
        return _WORDS[hint]
    if _is_union(hint):
        return " or ".join(map(describe_type, arguments))
    if typing.get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if typing.get_origin(hint) is list:
        return f"a list, each item {describe_type(arguments[0])}"
    if isinstance(hint, EnumType):
        return f"one of {', '.join(hint.__members__)}"
    return f"a {hint.__name__}" if isinstance(hint, type) and not arguments else str(hint)


def _build_parser(settings: type, program: str) -> ArgumentParser:
    """The jsonargparse parser of one dataclass; errors are raised, not printed."""
    parser = ArgumentParser(
        prog=program,
        usage="%(prog)s [CONFIG.yaml] [--option value ...]",
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("--config", action=ActionConfigFile, help="YAML file; the same as naming it first.")
    # jsonargparse would call a nested dataclass's default factory, even for --help. Some settings look at the
    # machine when they are created, so those groups are added by class and created once, from the final
    # values.
    fields = dataclasses.fields(settings)
    groups = {field.name: field.default_factory for field in fields if _is_own_default(field)}
    parser.add_class_arguments(settings, None, skip=set(groups))
    for name, group in groups.items():
        parser.add_class_arguments(group, name)
    return parser


def _is_own_default(field: dataclasses.Field) -> bool:
    """Whether a field's default is its dataclass, created without arguments."""
    factory = field.default_factory
    return isinstance(factory, type) and dataclasses.is_dataclass(factory)


def _split_files(arguments: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Takes the YAML files out of the command line: a leading bare word, and every `--config FILE`.

    Returns:
        The files, and the rest with `--dashed-names` written as the fields they mean.
    """
    files: list[Path] = []
    options: list[str] = []
    rest = list(arguments)
    if rest and not rest[0].startswith("-"):
        files.append(Path(rest.pop(0)))
    while rest:
        name, joined, value = rest.pop(0).partition("=")
        if name == "--config" and (joined or rest):
            files.append(Path(value if joined else rest.pop(0)))
        else:
            name = "--" + name[2:].replace("-", "_") if name.startswith("--") else name
            options.append(name + joined + value)
    return files, options


def _complete_options(arguments: Sequence[str], options: dict[str, Any]) -> list[str]:
    """Writes out the two shorthands: a bare switch becomes true, repeated text options become one list."""
    completed: list[str] = []
    repeated: dict[str, list[str]] = {}
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        name, joined, value = argument.removeprefix("--").partition("=")
        hint = options.get(name) if argument.startswith("--") else None
        values = [value] if joined else [word for word in rest[:1] if not word.startswith("--")]
        if hint is bool and not values:
            completed.append(f"{argument}=true")
        elif hint == list[str]:
            repeated.setdefault(name, []).extend(values)
            rest = rest if joined else rest[len(values) :]
        else:
            _refuse_comment(name, hint, "".join(values))
            completed.append(argument)
    return completed + [f"--{name}={_as_list(values)}" for name, values in repeated.items()]


def _refuse_comment(name: str, hint: Any, value: str) -> None:
    """An optional text passes through YAML, where a leading '#' would silently make it null.

    Raises:
        UserError: the value starts with '#'.
    """
    if hint == str | None and value.lstrip().startswith("#"):
        raise UserError(f"--{name}: {value!r} reads as a comment. Use a YAML file and quote it there.")


def _check_options(arguments: Sequence[str], options: dict[str, Any]) -> None:
    """Checks that every `--name` is an option, a group of options, or a key of one that takes a mapping.

    Raises:
        UserError: it is none of these; the nearest option is suggested.
    """
    groups = {name.rsplit(".", depth)[0] for name in options for depth in range(1, name.count(".") + 1)}
    for argument in arguments:
        name = argument.removeprefix("--").partition("=")[0].removesuffix("+")
        if not argument.startswith("--") or name in {"config", "help", "print_config", *options, *groups}:
            continue
        parents = (name.rsplit(".", depth)[0] for depth in range(1, name.count(".") + 1))
        if name.endswith(".help") or any(options.get(parent) is not None for parent in parents):
            continue
        raise UserError(f"'--{name}' is not an option. {_suggest(name, options)} Run with --help for all.")


def _as_list(values: list[str]) -> str:
    """One JSON list of the given values; a single value that already is a list stays as it is."""
    return (
        values[0]
        if len(values) == 1 and values[0].startswith("[")
        else json.dumps(values, ensure_ascii=False)
    )


def _reword(message: str, settings: type) -> str:
    """Says what came and what to do, in place of jsonargparse's message."""
    options = option_types(settings, into_lists=True)
    if missing := re.search(r"arguments are required: (.+)", message):
        names = missing.group(1)
        example = names.split(",")[0]
        return f"Missing: {names}. Write '{example}: ...' in the YAML file or add --{example} VALUE."
    if unknown := re.search(r"[Uu]nrecognized arguments: (.+)", message):
        name = unknown.group(1).split()[0].split("=")[0]
        return f"'{unknown.group(1)}' is not an option. {_suggest(name.lstrip('-'), options)}"
    keys = re.findall(r'Parser key "([^"]+)"', message)
    got = re.search(r"Got value: (.*)|Given value: (.*)", message)
    if keys and got:
        key = next((key for key in (keys[-1], ".".join(keys)) if key in options), keys[0])
        wanted = describe_type(options[key]) if key in options else "another type"
        return f"--{key}: got {(got.group(1) or got.group(2)).strip()!r}. Use {wanted}."
    return f"{message.strip()}. Run with --help for what is accepted."


def _suggest(name: str, known: Iterable[str]) -> str:
    """'Did you mean ...?', or the whole list where nothing is near."""
    known = sorted(known)
    last_words = {entry.rsplit(".", 1)[-1]: entry for entry in reversed(known)}
    last_word = name.rsplit(".", 1)[-1]
    near = [last_words[last_word]] if last_word in last_words else difflib.get_close_matches(name, known, n=1)
    near = near or [last_words[word] for word in difflib.get_close_matches(last_word, last_words, n=1)]
    return f"Did you mean '{near[0]}'?" if near else f"Use one of: {', '.join(known)}."


def _field_types(settings: type) -> dict[str, Any]:
    """The resolved type of every init field of a dataclass."""
    hints = typing.get_type_hints(settings)
    return {field.name: hints[field.name] for field in dataclasses.fields(settings) if field.init}


def _dataclass_in(hint: Any) -> type | None:
    """The one dataclass inside `D`, `D | None` or `list[D]`; None where there is none, or more than one."""
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return hint
    found = [inner for inner in map(_dataclass_in, typing.get_args(hint)) if inner is not None]
    return found[0] if len(found) == 1 else None


def _is_union(hint: Any) -> bool:
    """Whether a type is `A | B`, however it was written."""
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def _accepts(hint: Any, kind: type) -> bool:
    """Whether a type, or one member of a union, takes values of a plain kind; `Any` takes all."""
    members = typing.get_args(hint) if _is_union(hint) else (hint,)
    return any(member in (Any, kind) for member in members)


def _members(hint: Any, value: Any, place: str) -> list[tuple[str, Any]]:
    """The values to look into, each with its place: the items of a list, or the value itself."""
    if typing.get_origin(hint) is list and isinstance(value, list):
        return [(f"{place}.{index}", item) for index, item in enumerate(value)]
    return [(place, value)]
