"""Functions that an assistant may call, and the calls it made, as chat templates take them.

OpenAI's layout is the one that templates know: ``{"type": "function", "function": {"name", "arguments"}}``.
Records also hold them as JSON text, without the outer object, or under the older names. What a template makes
of them is not known here.
"""

import json
from typing import Any

from llama_adapter.data.fields import Row, filled
from llama_adapter.data.records import RecordProblem, brief

TOOL_KEYS = ("tools", "functions")
"""Keys of a record that list functions; the second is the older one, of bare functions."""
CALL_KEYS = ("tool_calls", "function_call")
"""Keys of a message that hold calls, likewise."""


def _objects(value: Any, key: str) -> list[Row]:
    """A list of objects, one object, or either as JSON text.

    Raises:
        RecordProblem: it is something else.
    """
    found = value
    if isinstance(value, str):
        try:
            found = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise RecordProblem(
                f"{key!r} is {value[:40]!r}; it must be a list of objects or its JSON"
            ) from error
    found = [found] if isinstance(found, dict) else found
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise RecordProblem(f"{key!r} is {brief(value)!r}; it must be a list of objects or its JSON")
    return found


def tools_of(row: Row) -> list[Row]:
    """The functions of a record.

    Args:
        row: with ``tools`` or ``functions``, or neither.

    Raises:
        RecordProblem: they are no list of objects.
    """
    if "functions" in filled(row):
        return [{"type": "function", "function": one} for one in _objects(row["functions"], "functions")]
    return _objects(row["tools"], "tools") if "tools" in filled(row) else []


def calls_of(message: Row) -> list[Row]:
    """The calls in a message.

    Args:
        message: with ``tool_calls`` or ``function_call``, or neither.

    Raises:
        RecordProblem: a call has no name, or its arguments are neither an object nor JSON of one.
    """
    key = next((key for key in CALL_KEYS if key in filled(message)), None)
    return [] if key is None else [_call(one, key) for one in _objects(message[key], key)]


def _call(given: Row, key: str) -> Row:
    """One call, with its arguments as an object."""
    function = given.get("function", given)
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise RecordProblem(f"{key!r} holds {brief(given)!r}; a call must have a name")
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            arguments = None
    if arguments is None and not function.get("arguments"):
        arguments = {}
    if not isinstance(arguments, dict):
        found = brief(function["arguments"])
        raise RecordProblem(f"the arguments of {function['name']!r} are {found!r}; they must be an object")
    outer = {"id": given["id"]} if given.get("id") else {}
    return {**outer, "type": "function", "function": {"name": function["name"], "arguments": arguments}}
