"""Values of JSON as texts: ids, answers, references; what is no text or number is never turned into one.

`1`, `1.0` and `"1"` are the same id. An answer may stand alone in a list or under one name, as caption files
have it; a list of numbers is left as it is, for tasks whose answers are boxes.
"""

import math
import reprlib
from collections.abc import Iterable
from typing import Any

from llama_adapter.errors import UserError

TEXT_FIELDS = ("answer", "caption", "raw", "text", "prediction")
"""Under one of these an object holds the text that it stands for."""
SHOWN = 8
"""How many names a message lists."""
_BRIEF = reprlib.Repr()
_BRIEF.maxlevel, _BRIEF.maxstring, _BRIEF.maxother, _BRIEF.maxlong = 3, 60, 60, 40
_BRIEF.maxdict = _BRIEF.maxlist = 6


def brief(value: Any) -> str:
    """A value for a message, cut to what fits, however deep or long it is."""
    return _BRIEF.repr(value)


def scalar_text(value: Any, place: str) -> str:
    """A text or number as text.

    Args:
        value: what a file holds.
        place: for the message.

    Raises:
        UserError: it is something else: a list, an object, nothing, or a number that is none.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value)):
        return str(value)
    raise UserError(f"{place} is {brief(value)}. Use a text or a number.")


def key_text(value: Any, place: str) -> str:
    """An id as text; whole numbers are equal however they are written.

    Args:
        value: what a file holds.
        place: for the message.

    Raises:
        UserError: it is neither text nor number.
    """
    if isinstance(value, bool):
        raise UserError(f"{place} is {value}. Use a text or a number.")
    return str(int(value)) if isinstance(value, float) and value.is_integer() else scalar_text(value, place)


def single(value: Any, place: str) -> Any:
    """What an answer is: a text, a number, or a list of numbers.

    Args:
        value: as a file holds it, perhaps as the only item of a list or under one of ``TEXT_FIELDS``.
        place: for the message.

    Returns:
        The answer; None where there is none.

    Raises:
        UserError: it holds several answers, or something else.
    """
    if isinstance(value, list) and len(value) == 1:
        return single(value[0], place)
    if isinstance(value, dict) and (named := [name for name in TEXT_FIELDS if value.get(name) is not None]):
        if len(named) > 1 and any(value[name] != value[named[0]] for name in named):
            raise UserError(f"{place} is {brief(value)}, with several answers. Use one text.")
        return single(value[named[0]], place)
    if value is None or is_numbers(value):
        return value
    if isinstance(value, list | dict):
        raise UserError(f"{place} is {brief(value)}. Use one text or number.")
    scalar_text(value, place)
    return value


def single_text(value: Any, place: str) -> str:
    """A reference answer as text.

    Raises:
        UserError: it is no single text or number.
    """
    return scalar_text(single(value, place), place)


def is_numbers(value: Any) -> bool:
    """Whether a value is a list of two or more finite numbers."""
    return (
        isinstance(value, list)
        and len(value) > 1
        and all(isinstance(one, int | float) and not isinstance(one, bool) for one in value)
        and all(isinstance(one, int) or math.isfinite(one) for one in value)
    )


def listed(names: Iterable[Any]) -> str:
    """The first few of some names, for a message."""
    names = list(names)
    rest = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(brief, names[:SHOWN])) + rest
