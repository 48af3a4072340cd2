"""`evaluate refcoco`: the share of boxes whose overlap with the reference (IoU) is 0.5 or more.

References are pixels, `[left, top, right, bottom]` or COCO's `[left, top, width, height]`; the picture's
size stands in `height` and `width`, or in a question id such as `height480_width640`. What the model's
numbers mean is an option: SPHINX gives shares of the picture after padding it to a square. Only the first box
of an answer counts. References that cannot be in their unit are refused; answers that look like another one
are said (`box_units.py`).
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from llama_adapter.errors import UserError
from llama_adapter.evaluation.box_units import (
    Box,
    Compared,
    Coordinates,
    doubts,
    iou,
    reference_problem,
    to_pixels,
)
from llama_adapter.evaluation.items import Item, ItemsConfig, ItemsTask, answer_text
from llama_adapter.evaluation.question import Question
from llama_adapter.evaluation.results import Scores, share
from llama_adapter.evaluation.task import run
from llama_adapter.evaluation.values import brief, is_numbers

THRESHOLD = 0.5
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)"
_BOX = re.compile(r"\s*[,;\s]\s*".join(f"({_NUMBER})" for _ in range(4)))
_SIZE = re.compile(r"height(\d+)_width(\d+)")


@dataclass(kw_only=True)
class RefCOCOConfig(ItemsConfig):
    """RefCOCO, RefCOCO+ and RefCOCOg: precision at IoU 0.5, in percent."""

    coordinates: Coordinates = "square"
    """What the numbers in the answers are."""

    boxes: Literal["pixels", "pixels_xywh"] = "pixels"
    """What the references are: left, top, right, bottom; or left, top, width, height, as COCO has them."""

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
        boxes: list[Compared] = []
        for item in self.items:
            said = _said(answers, item)
            height, width = size_of(item)
            box = published_box(said) if self.config.as_published else read_box(said)
            wanted = reference_box(item, (height, width), self.config.boxes)
            found = None if box is None else to_pixels(box, height, width, self.config.coordinates)
            overlap = 0.0 if found is None else iou(found, wanted)
            items.append({"id": item.id, "answer": said, "box": found, "iou": overlap})
            if box is not None:
                boxes.append(Compared(box, wanted, (height, width)))
        unread = sum(item["box"] is None for item in items)
        notes = [f"{unread} of {len(items)} answers hold no box and count as wrong."] if unread else []
        notes += doubts(boxes, self.config.coordinates, THRESHOLD)
        row = share("precision@0.5", [item["iou"] >= THRESHOLD for item in items])
        settings = self.settings() | {
            "coordinates": self.config.coordinates,
            "boxes": self.config.boxes,
            "unread": unread,
        }
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


def size_of(item: Item) -> tuple[float, float]:
    """Height and width of an item's picture.

    Raises:
        UserError: the record does not say.
    """
    height: Any = item.row.get("height")
    width: Any = item.row.get("width")
    if is_numbers([height, width]) and height > 0 and width > 0:
        return float(height), float(width)
    if named := _SIZE.search(str(item.row.get("question_id", ""))):
        return float(named.group(1)), float(named.group(2))
    raise UserError(
        f"The size of the picture of {item.id!r} is unknown: height is {brief(height)}, "
        f"width {brief(width)}. Add height and width to the record."
    )


def reference_box(item: Item, size: tuple[float, float], boxes: str) -> Box:
    """The reference box in pixels.

    Args:
        item: the question.
        size: height and width of its picture.
        boxes: ``pixels`` or ``pixels_xywh``.

    Raises:
        UserError: it is no box, or cannot be one in this unit.
    """
    values = item.references[0] if isinstance(item.references[0], list) else item.references
    if len(values) != 4 or not is_numbers(values):
        raise UserError(f"The reference of {item.id!r} is {brief(values)}. Use left, top, right, bottom.")
    left, top, third, fourth = map(float, values)
    box = (left, top, third, fourth) if boxes == "pixels" else (left, top, left + third, top + fourth)
    if why := reference_problem(box, size):
        other = "pixels_xywh" if boxes == "pixels" else "pixels"
        raise UserError(
            f"The reference of {item.id!r} is {brief(values)} in a picture of {size[1]:g} x {size[0]:g}; "
            f"as {boxes} {why}. Use --boxes {other}, or pixels in the file."
        )
    return box


def _said(answers: Mapping[str, Any], item: Item) -> str:
    """An answer as text; a list of numbers is a box."""
    answer = answers.get(item.id)
    return f"[{', '.join(map(str, answer))}]" if isinstance(answer, list) else answer_text(answers, item)


def _box(values: list[float]) -> Box | None:
    """Four numbers as a box."""
    if len(values) != 4 or not all(map(math.isfinite, values)):
        return None
    return (values[0], values[1], values[2], values[3])


def refcoco(config: RefCOCOConfig) -> int:
    """The `evaluate refcoco` verb.

    Raises:
        UserError: the expressions or the predictions cannot be used.
    """
    return run(RefCOCO(config), config)
