"""One thing to ask a model: its words, what is shown with it, and the record that it was made of."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


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
    inputs: dict[str, list[str]] = field(default_factory=dict)
    """What else is shown with it, as `generate` reads it: modality -> files."""
    has_image: bool = False
    """Whether something to be shown belongs to it, be it a file or inside of the data set."""
    has_none: bool = False
    """Whether it has no picture by nature, as ScienceQA's questions of text."""
    record: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """What it was made of; by its keys predictions find the question."""

    def to_dict(self) -> dict[str, Any]:
        """What a file of questions says of it."""
        return {key: value for key, value in asdict(self).items() if key not in ("record", "has_none")}
