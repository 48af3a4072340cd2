"""`evaluate refcoco`: the share of boxes whose overlap with the reference (IoU) is 0.5 or more.

References are pixels, `[left, top, right, bottom]`; the picture's size stands in `height` and `width`, or
in a question id such as `height480_width640`. What the model's numbers mean is an option: SPHINX gives
shares of the picture after padding it to a square. Only the first box of an answer counts.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from llama_adapter.errors import UserError
from llama_adapter.evaluation.items import Item, ItemsConfig, ItemsTask, answer_text
from llama_adapter.evaluation.results import Scores, share
from llama_adapter.evaluation.task import Question, run

Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""
Coordinates = Literal["square", "square_end", "image", "thousandths", "pixels"]
"""Shares of the square padded on both sides, or at the end alone; shares of the picture,
thousandths of the picture, or pixels."""

THRESHOLD = 0.5
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)"
_BOX = re.compile(r"\s*[,;\s]\s*".join(f"({_NUMBER})" for _ in range(4)))
_SIZE = re.compile(r"height(\d+)_width(\d+)")


@dataclass(kw_only=True)
class RefCOCOConfig(ItemsConfig):
    """RefCOCO, RefCOCO+ and RefCOCOg: precision at IoU 0.5, in percent."""

    coordinates: Coordinates = "square"
    """What the numbers in the answers are."""

    suffix: str = ""
    """Put behind every question that a model is asked."""

    prompt: str = "Please provide the bounding box coordinate of the region this sentence describes: {}."
    """How an expression is asked for."""


@dataclass
class RefCOCO(ItemsTask):
    """The task."""

    name = "refcoco"
    config: RefCOCOConfig

    def questions(self) -> list[Question]:
        """The prompt around every expression."""
        prompt, suffix = self.config.prompt, self.config.suffix
        return [self._question(item, prompt.replace("{}", item.question) + suffix) for item in self.items]

    def score(self, answers: Mapping[str, Any]) -> Scores:
        """Precision over all expressions."""
        items: list[dict[str, Any]] = []
        for item in self.items:
            said = answer_text(answers, item)
            height, width = size_of(item)
            box = published_box(said) if self.config.as_published else read_box(said)
            found = None if box is None else to_pixels(box, height, width, self.config.coordinates)
            overlap = 0.0 if found is None else iou(found, _reference(item))
            items.append({"id": item.id, "answer": said, "box": found, "iou": overlap})
        unread = sum(item["box"] is None for item in items)
        notes = [f"{unread} of {len(items)} answers hold no box and count as wrong."] if unread else []
        row = share("precision@0.5", [item["iou"] >= THRESHOLD for item in items])
        settings = self.settings() | {"coordinates": self.config.coordinates, "unread": unread}
        return Scores("RefCOCO", [row], items, notes, settings)


def read_box(answer: str) -> Box | None:
    """The first four numbers in a row of an answer, in brackets if there are such.

    Args:
        answer: what the model said.
    """
    for text in (*re.findall(r"\[([^\[\]]*)\]", answer), answer):
        if found := _BOX.search(text):
            return _box(list(map(float, found.groups())))
    return None


def published_box(answer: str) -> Box | None:
    """What stands between the first brackets, or before the first `]`, if it is four numbers with commas.

    Args:
        answer: what the model said.
    """
    inside = answer.partition("]")[0].rpartition("[")[2]
    try:
        return _box([float(part) for part in inside.split(",")])
    except ValueError:
        return None


def to_pixels(box: Box, height: float, width: float, coordinates: Coordinates) -> Box:
    """A box in pixels of the picture.

    Args:
        box: as the model gave it.
        height: of the picture, in pixels.
        width: of the picture, in pixels.
        coordinates: what the numbers are.
    """
    if coordinates == "pixels":
        return box
    if coordinates in ("square", "square_end"):
        side = max(height, width)
        right, down = (0, 0) if coordinates == "square_end" else ((side - width) // 2, (side - height) // 2)
        return (box[0] * side - right, box[1] * side - down, box[2] * side - right, box[3] * side - down)
    unit = 1000 if coordinates == "thousandths" else 1
    return (box[0] * width / unit, box[1] * height / unit, box[2] * width / unit, box[3] * height / unit)


def iou(first: Sequence[float], second: Sequence[float]) -> float:
    """Area of the intersection of two boxes over that of their union; 0 for boxes without area.

    Args:
        first: left, top, right, bottom.
        second: the same of another box.
    """
    across = min(first[2], second[2]) - max(first[0], second[0])
    down = min(first[3], second[3]) - max(first[1], second[1])
    areas = [max(box[2] - box[0], 0) * max(box[3] - box[1], 0) for box in (first, second)]
    shared = max(across, 0) * max(down, 0)
    union = sum(areas) - shared
    return shared / union if union > 0 and all(areas) else 0.0


def size_of(item: Item) -> tuple[float, float]:
    """Height and width of an item's picture.

    Raises:
        UserError: the record does not say.
    """
    height, width = item.row.get("height"), item.row.get("width")
    if height and width:
        return float(height), float(width)
    if named := _SIZE.search(str(item.row.get("question_id", ""))):
        return float(named.group(1)), float(named.group(2))
    raise UserError(
        f"The size of the picture of {item.id!r} is unknown: height is {height!r}, width {width!r}. "
        "Add height and width to the record."
    )


def _reference(item: Item) -> Box:
    """The reference box."""
    values = item.references[0] if isinstance(item.references[0], list) else item.references
    box = _box([float(value) for value in values]) if len(values) == 4 else None
    if box is None:
        raise UserError(f"The reference of {item.id!r} is {values!r}. Use left, top, right, bottom.")
    return box


def _box(values: list[float]) -> Box | None:
    """Four numbers as a box."""
    return (values[0], values[1], values[2], values[3]) if len(values) == 4 else None


def refcoco(config: RefCOCOConfig) -> int:
    """The `evaluate refcoco` verb.

    Raises:
        UserError: the expressions or the predictions cannot be used.
    """
    return run(RefCOCO(config), config)
