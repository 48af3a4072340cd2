"""YAML of a user: bounded, without doubles, and with the line where something is wrong.

What is unusual: scalars are those of YAML 1.2. A time of day, a date, ``no`` and a number with a leading zero
are texts, which YAML 1.1 turns into numbers, dates and false; keys are texts always. A file whose aliases
would grow beyond what anybody writes, or that nests deeper, is refused before anything of it is built. It
does not know settings.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from llama_adapter.errors import UserError

_DEPTH = 50
_NODES = 100_000
_DIGITS = 40
_TEXT = "tag:yaml.org,2002:str"
_SCALARS = {
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?(0|[1-9][0-9_]*)|0x[0-9a-fA-F_]+", "-+0123456789"),
    "float": (
        r"[-+]?([0-9][0-9_]*\.[0-9_]*([eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+"
        r"|\.[0-9]+([eE][-+]?[0-9]+)?|\.(inf|Inf|INF))|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "merge": (r"<<", "<"),
}


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Plain values only; the C parser where it is there."""

    yaml_implicit_resolvers: dict[str, Any] = {}


for _name, (_pattern, _first) in _SCALARS.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(f"^(?:{_pattern})$"), list(_first))


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads a mapping of settings; an empty file is an empty mapping.

    Raises:
        UserError: the file is missing, is not UTF-8, is not YAML, or holds something other than a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError(f"{path}: {reason}. Provide the path of a YAML file with settings.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}. Use UTF-8 text.") from error
    try:
        content = parse_yaml(text)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__}. Use 'key: value' lines at its top level.")
    return content


def parse_yaml(text: str) -> Any:
    """The value of one YAML document.

    Raises:
        UserError: it is not YAML, or more than settings can be; names the line.
    """
    try:
        _check_size(text)
        node = yaml.compose(text, Loader=_Loader)
        if node is None:
            return None
        _check_node(node, set())
        loader = _Loader("")
        try:
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except UserError:
        raise
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}" if mark else ""
        raise UserError(
            f"not valid YAML{where}: {error.problem or error.context}. Use 'key: value' lines."
        ) from error
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        # PyYAML trips over values that are not of the type of their tag
        raise UserError(f"not valid YAML, {' '.join(str(error).split())}. Use 'key: value' lines.") from error


def _check_size(text: str) -> None:
    """Counts what a text would become, aliases written out, without building it.

    Raises:
        UserError: it is too much or too deep, an alias stands inside what it names, or there are several
            documents.
    """
    sizes: dict[str, int] = {}
    open_nodes: list[tuple[str | None, int]] = []
    total = documents = 0
    for event in yaml.parse(text, Loader=_Loader):
        line = event.start_mark.line + 1
        documents += isinstance(event, yaml.DocumentStartEvent)
        if documents > 1:
            raise UserError(f"line {line}: a second document begins. Use one document.")
        if isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((event.anchor, total))
            sizes.pop(event.anchor, None)
            total += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_nodes.pop()
            sizes[anchor or ""] = total - before
        elif isinstance(event, yaml.ScalarEvent):
            sizes[event.anchor or ""] = 1
            total += 1
        elif isinstance(event, yaml.AliasEvent):
            if any(anchor == event.anchor for anchor, _ in open_nodes):
                raise UserError(f"line {line}: '*{event.anchor}' stands inside what it names. Write it out.")
            total += sizes.get(event.anchor, 1)
        if total > _NODES or len(open_nodes) > _DEPTH:
            raise UserError(
                f"line {line}: more than {_NODES} values or {_DEPTH} levels, aliases written out. "
                "Use a file with settings only."
            )


def _check_node(node: yaml.Node, seen: set[int]) -> None:
    """Makes keys texts; refuses doubles and numbers that nobody writes.

    Raises:
        UserError: names key and line.
    """
    if id(node) in seen:  # an alias
        return
    seen.add(id(node))
    line = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        _check_mapping(node)
        for _, value in node.value:
            _check_node(value, seen)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _check_node(value, seen)
    elif node.tag == "tag:yaml.org,2002:int" and len(node.value) > _DIGITS:
        raise UserError(f"line {line}: {node.value[:20]}... has {len(node.value)} digits. Use fewer.")


def _check_mapping(node: yaml.MappingNode) -> None:
    """The keys of one mapping."""
    lines: dict[str, int] = {}
    for key, _ in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise UserError(f"line {line}: a key is a {key.id}. Use a text.")
        if key.tag == "tag:yaml.org,2002:merge":
            continue
        key.tag = _TEXT
        if key.value in lines:
            raise UserError(
                f"line {line}: '{key.value}' was set in line {lines[key.value]} already. Keep one of them."
            )
        lines[key.value] = line
