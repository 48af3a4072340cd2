"""From YAML files and command-line options to one settings dataclass.

Files and options are merged into one mapping, which is checked and converted by ``values``; jsonargparse then
makes the objects, and prints help. What is unusual: a mapping for a setting that has several kinds, such as
``adapter``, is merged into what is there where it is of the same kind, and replaces it where it is of
another. The YAML file is simply the first argument, `--flag` alone means true, a list option may be repeated,
dashes mean underscores. This file does not know the verbs.
"""

import dataclasses
import json
import traceback
import warnings
from argparse import ArgumentError
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from jsonargparse import ActionConfigFile, ArgumentParser, set_loader, set_parsing_settings

from llama_adapter.errors import UserError
from llama_adapter.schema import check_keys, check_option, field_types, option_types, parts
from llama_adapter.setting_merge import merge, set_option
from llama_adapter.values import missing_options, read_values
from llama_adapter.yaml_text import parse_yaml, read_yaml

Settings = TypeVar("Settings")

set_parsing_settings(docstring_parse_attribute_docstrings=True)
_MODE = "checked"  # texts have been read by then; YAML would drop one that looks like a comment
set_loader(_MODE, json.loads, exceptions=(ValueError,))

_PRINTING = ("help", "print_config")
"""Options that print and leave."""


def parse(settings: type[Settings], arguments: Sequence[str], program: str) -> Settings:
    """Builds `settings` from an optional leading YAML file and `--dotted.option value` overrides.

    Args:
        settings: a dataclass; its fields are the options, nested dataclasses give dotted names. The list
            option that its class variable `BARE_WORDS` names takes leading words without a name.
        arguments: what stands on the command line after the program's own name.
        program: the program's name, for the help page.

    Raises:
        UserError: an option, key or value is not accepted, or the file cannot be read.
        SystemExit: after `--help` or `--print_config`, with code 0.
    """
    files, words = _split_files(_name_bare_words(arguments, getattr(settings, "BARE_WORDS", None)))
    printing = [word for word in words if word == "-h" or _name(word).rsplit(".", 1)[-1] in _PRINTING]
    content: dict[str, Any] = {}
    for path in files:
        merge(content, _checked_file(path, settings), settings)
    given = _pairs([word for word in words if word not in printing], option_types(settings))
    for name, value in given:
        check_option(name.removesuffix("+"), settings)
        if value is None:
            raise UserError(f"'--{name}' has no value. Write --{name} VALUE.")
        set_option(content, name, value, settings)
    check_keys(content, settings)
    content = read_values(content, settings)
    try:
        if printing:
            _build_parser(settings, program, "yaml").parse_args(
                [*([f"--config={json.dumps(content)}"] if content else []), *printing]
            )
        if missing := missing_options(content, settings):
            raise UserError(
                f"Missing: {', '.join(missing)}. "
                f"Write '{missing[0]}: ...' in the YAML file or add --{missing[0]} VALUE."
            )
        return _create(_build_parser(settings, program, _MODE), content, settings)
    except (ArgumentError, TypeError, ValueError) as error:
        raise _as_user_error(error, settings) from error


def _create(parser: ArgumentParser, content: dict[str, Any], settings: type[Settings]) -> Settings:
    """The dataclass of a checked mapping."""
    with warnings.catch_warnings():
        # jsonargparse makes LoraConfig's empty default for `LoftQConfig | dict` a LoftQConfig
        warnings.filterwarnings("ignore", message="`loftq_config` specified but will be ignored")
        values = vars(parser.instantiate(parser.parse_object(content)))
        values.pop("config", None)
        return settings(**values)


def _as_user_error(error: BaseException, settings: type) -> UserError:
    """The error of ours that a parser's error was made from, or its message; with the group that refused."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, UserError):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        said = " ".join(str(error).split())
        return UserError(f"{said}. Run with --help for what is accepted.")
    groups = {
        kind: name for name in field_types(settings) for kind in parts(field_types(settings)[name]).groups
    }
    for frame, _ in traceback.walk_tb(cause.__traceback__):
        if frame.f_code.co_name == "__post_init__" and type(frame.f_locals.get("self")) in groups:
            return UserError(f"{groups[type(frame.f_locals['self'])]}: {cause}")
    return cause if isinstance(cause, UserError) else UserError(str(cause))


def _checked_file(path: Path, settings: type) -> dict[str, Any]:
    """A YAML file's settings, with keys that exist.

    Raises:
        UserError: a key is wrong; the file is named.
    """
    content = read_yaml(path)
    try:
        check_keys(content, settings)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return content


def _build_parser(settings: type, program: str, mode: str) -> ArgumentParser:
    """The jsonargparse parser of one dataclass; errors are raised, not printed."""
    parser = ArgumentParser(
        prog=program,
        usage=f"%(prog)s {_leading(settings)} [--option value ...]",
        parser_mode=mode,
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


def _leading(settings: type) -> str:
    """What may stand before the options."""
    option = getattr(settings, "BARE_WORDS", None)
    return "[CONFIG.yaml]" if option is None else f"[CONFIG.yaml | {option} ...]"


def _is_own_default(field: dataclasses.Field) -> bool:
    """Whether a field's default is its dataclass, created without arguments."""
    factory = field.default_factory
    return isinstance(factory, type) and dataclasses.is_dataclass(factory)


def _name_bare_words(arguments: Sequence[str], option: str | None) -> list[str]:
    """Leading words without a name as values of the list option that a dataclass names in `BARE_WORDS`."""
    words = list(arguments)
    if option is None or any(word.endswith((".yaml", ".yml")) for word in words[:1]):
        return words
    count = next((place for place, word in enumerate(words) if word.startswith("-")), len(words))
    return [*(f"--{option}={word}" for word in words[:count]), *words[count:]]


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


def _name(word: str) -> str:
    """The option that a word of the command line names; empty where it names none."""
    return word[2:].partition("=")[0] if word.startswith("--") else ""


def _pairs(words: Sequence[str], options: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Options with their values: a bare switch is true, a repeated list of texts becomes one list.

    Returns:
        Names and values; None for an option that has none and is no switch.

    Raises:
        UserError: a word is no option.
    """
    repeated: dict[str, list[str]] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name = _name(word)
        value: str | None
        _, joined, value = word.partition("=")
        hint = options.get(name)
        if not name:
            raise UserError(f"'{word}' is not an option. Write options as --name value.")
        if not joined and rest and not rest[0].startswith("--"):
            value = rest.pop(0)
        elif not joined and hint is bool:
            value = "true"
        elif not joined:
            value = None
        if hint == list[str] and value is not None:
            repeated.setdefault(name, []).append(value)
        else:
            yield name, value
    for name, values in repeated.items():
        yield name, _one_list(values)


def _one_list(values: list[str]) -> list[str]:
    """The given texts; one that is a YAML list of its own is that list."""
    if len(values) > 1 or not values[0].startswith("["):
        return values
    try:
        found = parse_yaml(values[0])
    except UserError:  # a text that begins with a bracket
        return values
    return found if isinstance(found, list) else values
