"""From a YAML file and command-line options to one settings dataclass.

jsonargparse does the parsing; this file adds what a user meets at the edges of it: the YAML file is simply
the first argument, `--flag` alone means true, a list option may be repeated, dashes mean underscores, and
every rejected key is answered with its dotted name, the values it accepts and the nearest name that exists.
It does not know the verbs.
"""

import dataclasses
import itertools
import json
import re
import warnings
from argparse import ArgumentError
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from jsonargparse import ActionConfigFile, ArgumentParser, get_loader, set_parsing_settings

from llama_adapter.errors import UserError
from llama_adapter.schema import check_keys, check_option, describe_type, option_types, suggest

Settings = TypeVar("Settings")

set_parsing_settings(docstring_parse_attribute_docstrings=True)


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
    parser = _build_parser(settings, program)
    files, given = _split_files(_name_bare_words(arguments, getattr(settings, "BARE_WORDS", None)))
    given = _complete_options(given, option_types(settings))
    for name in _names(given):
        check_option(name, settings)
    filled = [f"--config={path}" for path in files if _check_file(path, settings)]
    try:
        with warnings.catch_warnings():
            # jsonargparse makes LoraConfig's empty default for `LoftQConfig | dict` a LoftQConfig
            warnings.filterwarnings("ignore", message="`loftq_config` specified but will be ignored")
            values = vars(parser.instantiate(parser.parse_args([*filled, *given])))
            values.pop("config")
            return settings(**values)
    except UserError:
        raise
    except (ArgumentError, TypeError, ValueError) as error:
        cause = error.__cause__
        said = str(cause) if isinstance(cause, UserError) else _reword(str(error), settings, given)
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


def _check_file(path: Path, settings: type) -> bool:
    """Checks a YAML file's keys; False when it holds none.

    Raises:
        UserError: a key is wrong; the file is named.
    """
    content = read_yaml(path)
    try:
        check_keys(content, settings)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return bool(content)


def _build_parser(settings: type, program: str) -> ArgumentParser:
    """The jsonargparse parser of one dataclass; errors are raised, not printed."""
    parser = ArgumentParser(
        prog=program,
        usage=f"%(prog)s {_leading(settings)} [--option value ...]",
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


def _names(arguments: Sequence[str]) -> list[str]:
    """The options among the words of a command line, without those of the parser itself."""
    names = [word[2:].partition("=")[0].removesuffix("+") for word in arguments if word.startswith("--")]
    return [name for name in names if name not in ("config", "help", "print_config")]


def _given_as(value: str, arguments: Sequence[str]) -> list[str]:
    """Options that have a value on the command line: of alternatives, jsonargparse names the group only."""
    words = [word for argument in arguments for word in argument.split("=", 1)]
    return [name[2:] for name, said in itertools.pairwise(words) if name.startswith("--") and said == value]


def _as_list(values: list[str]) -> str:
    """One JSON list of the given values; a single value that already is a list stays as it is."""
    is_list = len(values) == 1 and values[0].startswith("[")
    return values[0] if is_list else json.dumps(values, ensure_ascii=False)


def _reword(message: str, settings: type, given: Sequence[str]) -> str:
    """Says what came and what to do, in place of jsonargparse's message.

    Args:
        message: of jsonargparse.
        settings: the dataclass that was to be made.
        given: the command line.
    """
    options = option_types(settings, deep=True)
    if missing := re.search(r"arguments are required: (.+)", message):
        names = missing.group(1)
        example = names.split(",")[0]
        return f"Missing: {names}. Write '{example}: ...' in the YAML file or add --{example} VALUE."
    if unknown := re.search(r"[Uu]nrecognized arguments: (.+)", message):
        name = unknown.group(1).split()[0].split("=")[0]
        return f"'{unknown.group(1)}' is not an option. {suggest(name.lstrip('-'), options)}"
    keys = re.findall(r'Parser key "([^"]+)"', message)
    got = re.search(r"Got value: (.*)|Given value: (.*)", message)
    if keys and got:
        key = next((key for key in (keys[-1], ".".join(keys)) if key in options), keys[0])
        value = (got.group(1) or got.group(2)).strip()
        key = next((name for name in _given_as(value, given) if name.startswith(f"{key}.")), key)
        wanted = describe_type(options[key]) if key in options else "another type"
        return f"--{key}: got {value!r}. Use {wanted}."
    return f"{message.strip()}. Run with --help for what is accepted."
