"""Names and shapes of the tensors of published checkpoints, from `tests/golden/checkpoint_keys.json`."""

import json
from pathlib import Path

_LISTS = Path(__file__).resolve().parent.parent / "golden" / "checkpoint_keys.json"


def published_keys(name):
    """(what the file wraps its tensors in, shapes by name); `*` in the list stands for a range of numbers."""
    listed = json.loads(_LISTS.read_text())[name]
    shapes = {}
    for pattern, numbers, shape in listed["keys"]:
        first, last = numbers or (0, 0)
        for number in range(first, last + 1):
            shapes[pattern.replace("*", str(number), 1)] = shape
    return listed["container"], shapes
