"""One thing to ask a model: its words, what is shown with it, and the record that it was made of."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llama_adapter.media import MediaItem


@dataclass(frozen=True)
class Question:
    """One thing to ask a model."""

    id: str
    """Names the question in predictions and results."""
    prompt: str
    """What to ask, complete; empty where a task has no text of its own."""
    image: str | None = None
    """The picture that belongs to it, if it is a file."""
    options: list[str] = field(default_factory=list)
    """The answers to choose from, where there are some."""
    candidates: list[str] = field(default_factory=list)
    """What a model says for each option: the texts whose likelihood is scored."""
    inputs: tuple[MediaItem, ...] = ()
    """What else is shown with it: several pictures, their bytes, sounds, videos, clouds."""
    has_image: bool = False
    """Whether something to be shown belongs to it, be it a file or inside of the data set."""
    has_none: bool = False
    """Whether it has no picture by nature, as ScienceQA's questions of text."""
    record: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """What it was made of; by its keys predictions find the question."""

    def to_dict(self) -> dict[str, Any]:
        """What a file of questions says of it, for `generate --prompt-file`."""
        names = ("id", "prompt", "image", "options", "candidates", "has_image")
        inputs: dict[str, list[str]] = {}
        for item in self.inputs:
            if isinstance(item.content, str):
                weight = "" if item.weight == 1 else f":{item.weight:g}"
                inputs.setdefault(item.modality, []).append(item.content + weight)
        return {name: getattr(self, name) for name in names} | ({"inputs": inputs} if inputs else {})
