"""Files of settings: JSON whose content must be an object."""

import json
from pathlib import Path
from typing import Any

from llama_adapter.errors import UserError
from llama_adapter.file_formats.damage import FRESH_COPY, reading


def read_object(path: str | Path, advice: str = FRESH_COPY) -> dict[str, Any]:
    """The object in a JSON file.

    Args:
        path: the file.
        advice: what to do where it is damaged, a sentence.

    Raises:
        UserError: it is empty, cut, no JSON, or holds something else.
    """
    path = Path(path)
    with reading(path, "JSON file", advice):
        text = path.read_text(encoding="utf-8-sig")
        if not text.strip():
            raise UserError(f"{str(path)!r} is empty. {advice}")
        content = json.loads(text)
    if not isinstance(content, dict):
        raise UserError(f"{str(path)!r} holds {_short(content)}, where an object {{...}} belongs. {advice}")
    return content


def _short(content: Any) -> str:
    """A value for a message."""
    text = json.dumps(content, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:40]} ..."
