"""Inputs as they are written on a command line, ``PATH`` or ``PATH:WEIGHT``; a text in the path's place."""

import re
from dataclasses import dataclass
from pathlib import Path

from llama_adapter.errors import UserError

_WEIGHTED = re.compile(r"(.+):([+-]?(?:\d+\.?\d*|\.\d+))")


@dataclass(frozen=True)
class WeightedInput:
    """One input of a mix."""

    modality: str
    """A modality of ImageBind."""
    content: str
    """Its file, or the text itself."""
    weight: float = 1.0
    """Its weight."""


def read_input(modality: str, written: str) -> WeightedInput:
    """One input.

    Args:
        modality: what it is.
        written: a file's or text's end of the form ``:0.5`` is its weight, unless a file has this whole name.

    Raises:
        UserError: it is empty, or the file is not there.
    """
    found = None if Path(written).is_file() else _WEIGHTED.fullmatch(written)
    content, weight = (found[1], float(found[2])) if found else (written, 1.0)
    if not content.strip() or (modality != "text" and not Path(content).is_file()):
        raise UserError(
            f"{modality} is {written!r}, which is no file. Use PATH, or PATH:WEIGHT such as a.jpg:0.7."
        )
    return WeightedInput(modality, content, weight)
