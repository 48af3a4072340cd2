"""Task types: a record of a picture, or of text alone, becomes an instruction and an answer in words.

Each task is a function from a row to what its instruction and its answer hold; boxes and points come out in
shares of the padded square, whatever the records count in. Instructions are texts of ``instructions.yaml``,
or of a file of the user's. Files of records are the core's.
"""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from llama_adapter.data.fields import Parsed, Row, list_of, listed, optional_text, text_of
from llama_adapter.data.records import RecordProblem, Turn
from llama_adapter.errors import UserError
from sphinx_ft.boxes import from_pixels, padded_as, to_square, write
from sphinx_ft.views import ViewConfig, place

Parts = tuple[dict[str, str], str]
"""What an instruction may hold, by name, and the answer."""


@dataclass(frozen=True)
class Places:
    """Reads boxes and points of one record."""

    row: Row
    boxes: str
    """What the numbers are: see ``TaskConfig``."""
    views: ViewConfig
    """How the model pads."""

    def __call__(self, value: Any, key: str, count: int = 4) -> str:
        """A box or a point in words.

        Raises:
            RecordProblem: it is not ``count`` numbers, or lies outside, or the picture's size is unknown.
        """
        numbers = value if isinstance(value, list | tuple) else []
        if len(numbers) != count or not all(isinstance(number, int | float) for number in numbers):
            raise RecordProblem(f"{key!r} is {str(value)[:40]!r}; it must be {count} numbers")
        if self.boxes == "pixels_xywh" and count == 4:
            left, top, width, height = numbers
            numbers = [left, top, left + width, top + height]
        shares: Any = tuple(map(float, numbers))
        if self.boxes != "square":
            size = self._size()
            shares = shares if self.boxes == "picture" else from_pixels(shares, size)
            _check_inside(shares, value, key)
            shares = to_square(shares, place(size, self.views))
        else:
            _check_inside(shares, value, key)
        return write(shares)

    def _size(self) -> tuple[int, int]:
        """Width and height of the picture."""
        width, height = self.row.get("width"), self.row.get("height")
        if not (isinstance(width, int) and isinstance(height, int) and min(width, height) > 0):
            raise RecordProblem(
                f"width is {width!r} and height {height!r}; both must be there, in pixels, to tell where "
                "boxes lie in the padded picture"
            )
        return width, height


def _check_inside(shares: Any, value: Any, key: str) -> None:
    """Boxes in the wrong unit would all be cut to the edge, unseen; so what is far outside is refused."""
    if min(shares) < -0.01 or max(shares) > 1.01:
        raise RecordProblem(
            f"{key!r} is {str(value)[:40]!r}, which lies outside of the picture; set task.boxes to what the "
            "numbers are"
        )
    if len(shares) == 4 and (shares[0] > shares[2] or shares[1] > shares[3]):
        raise RecordProblem(
            f"{key!r} is {str(value)[:40]!r}; its right and lower edge come before the others"
        )


def _vqa(row: Row, places: Places) -> Parts:
    answer = row.get("answer")
    if answer is None:
        answers = listed(row.get("answers"))
        answer = answers[0] if answers else None
    if isinstance(answer, dict):
        answer = answer.get("answer")
    return {"question": text_of(row, "question")}, text_of({"answer": answer}, "answer")


def _caption(row: Row, places: Places) -> Parts:
    return {}, text_of(row, "caption")


def _region(row: Row, places: Places) -> Parts:
    return {"box": places(row.get("box"), "box")}, text_of(row, "caption")


def _grounding(row: Row, places: Places) -> Parts:
    boxes = row.get("boxes") or [row.get("box")]
    said = ", ".join(places(box, "box") for box in boxes)
    return {"expression": text_of(row, "expression").rstrip(". ")}, said


def _ocr(row: Row, places: Places) -> Parts:
    return {}, text_of(row, "text")


def _layout(row: Row, places: Places) -> Parts:
    lines = []
    for part in list_of(row, "regions"):
        text = " ".join(optional_text(part, "text").split())
        line = f"{text_of(part, 'label')} {places(part.get('box'), 'box')}"
        lines.append(f"{line}: {text}" if text else line)
    return {}, "\n".join(lines)


def _pose(row: Row, places: Places) -> Parts:
    points = [
        f"{text_of(one, 'label')} {places(one.get('point'), 'point', 2)}" for one in list_of(row, "points")
    ]
    return {"subject": optional_text(row, "subject") or "person"}, ", ".join(points)


def _detection(row: Row, places: Places) -> Parts:
    found: dict[str, list[str]] = {}
    for one in list_of(row, "objects"):
        found.setdefault(text_of(one, "label"), []).append(places(one.get("box"), "box"))
    return {}, "; ".join(f"{label} {', '.join(boxes)}" for label, boxes in found.items())


def _text(row: Row, places: Places) -> Parts:
    context = optional_text(row, "input")
    instruction = text_of(row, "instruction") + (f"\n\n{context}" if context else "")
    return {"instruction": instruction}, text_of(row, "output")


TASKS: dict[str, Callable[[Row, Places], Parts]] = {
    "vqa": _vqa,
    "caption": _caption,
    "region": _region,
    "grounding": _grounding,
    "ocr": _ocr,
    "layout": _layout,
    "pose": _pose,
    "detection": _detection,
    "text": _text,
}


_BOXES = ("box", "width", "height")
TASK_KEYS: dict[str, tuple[str, ...]] = {
    "vqa": ("question", "answer", "answers"),
    "caption": ("caption",),
    "region": (*_BOXES, "caption"),
    "grounding": (*_BOXES, "boxes", "expression"),
    "ocr": ("text",),
    "layout": (*_BOXES, "regions"),
    "pose": (*_BOXES, "points", "subject"),
    "detection": (*_BOXES, "objects"),
    "text": ("instruction", "input", "output"),
}
"""Task -> the keys of its records, besides media."""


def plan_task(settings: Mapping[str, Any], own: str | None) -> dict[str, Any]:
    """All that decides what records of a task become.

    Args:
        settings: of ``TaskConfig``.
        own: content of the user's file of instructions.

    Raises:
        UserError: there is no such task, its grid is no grid, or its instructions are not texts.
    """
    name = settings["name"]
    if name not in TASKS:
        raise UserError(f"task.name is {name!r}. Use one of: {', '.join(TASKS)}.")
    padded_as(settings["padding"], settings["grid"])
    text = (Path(__file__).parent / "instructions.yaml").read_text(encoding="utf-8") if own is None else own
    try:
        texts = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(
            f"{settings['instructions']!r} is no YAML: {error}. Use name: list of texts."
        ) from error
    chosen = texts.get(name) if isinstance(texts, dict) else None
    if not isinstance(chosen, list) or not chosen or not all(isinstance(one, str) for one in chosen):
        raise UserError(
            f"The instructions of {name!r} are {str(chosen)[:60]!r} in {settings['instructions']!r}. "
            f"Use a list of texts under the key {name}."
        )
    return {**settings, "texts": chosen, "version": 1}


def task_reader(plan: Mapping[str, Any]) -> Callable[[Row, str], Parsed]:
    """What reads a row of the task.

    Args:
        plan: of ``plan_task``.
    """
    views = padded_as(plan["padding"], plan["grid"])
    parts, texts = TASKS[plan["name"]], plan["texts"]

    def read(row: Row, record_id: str) -> Parsed:
        held, answer = parts(row, Places(row, plan["boxes"], views))
        asked = texts[zlib.crc32(f"{record_id} {answer}".encode("utf-8", "replace")) % len(texts)]
        for name, value in held.items():
            asked = asked.replace(f"{{{name}}}", value)
        return Parsed([Turn("user", asked), Turn("assistant", answer)])

    return read
