"""The ``draw`` verb: answers with boxes and points -> pictures with these drawn in.

It takes an answer and a picture, or the file that ``generate --output`` writes. No model runs, but SAM where
masks are asked for.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.progress import track

from llama_adapter.data.images import read_image
from llama_adapter.errors import UserError
from llama_adapter.evaluation.files import read_records
from sphinx_ft.boxes import Mark, find_marks, in_picture, padded_as, to_pixels
from sphinx_ft.drawing import draw_marks


@dataclass(kw_only=True)
class DrawConfig:
    """Which answers to draw, and where to."""

    output: str
    """PNG file to write; with --answers a folder."""
    image: str | None = None
    """The picture of one answer."""
    answer: str | None = None
    """What a model said of it, such as ``a cat [0.10,0.20,0.55,0.80]``."""
    answers: str | None = None
    """JSONL file with ``image`` and ``answer`` in each line, as ``generate --output`` writes it."""
    boxes: Literal["square", "picture", "pixels"] = "square"
    """What the numbers are: shares of the padded square, as SPHINX says them; of the picture; or pixels."""
    padding: Literal["centred", "end"] = "centred"
    """Where the model's padding leaves a picture in its square."""
    grid: str = "1x1"
    """Rows and columns of the model's sub-images; the square is another one only where they differ."""
    label: str = ""
    """What to write on marks that the answer gives no name."""
    masks: str | None = None
    """Folder or name of a SAM of transformers: the outline of what each box holds is laid in."""
    font: str | None = None
    """TrueType file for labels, for letters that the built-in font lacks."""

    def __post_init__(self) -> None:
        one = self.image is not None and self.answer is not None
        if one == (self.answers is not None) or (self.answers and (self.image or self.answer)):
            raise UserError(
                f"image is {self.image!r}, answer {self.answer!r} and answers {self.answers!r}. Use "
                "--image and --answer for one, or --answers for a file of them."
            )


def draw(config: DrawConfig) -> int:
    """Draws and returns the exit code: 0, or 1 where no answer held a box or a point.

    Raises:
        UserError: a picture or the file of answers cannot be read.
    """
    console = Console(highlight=False)
    find_masks: Any = None
    if config.masks is not None:
        from sphinx_ft.masks import BoxMasks

        find_masks = BoxMasks(config.masks)
    rows = list(_rows(config))
    counts = []
    for image, answer, path in track(
        rows, "Drawing", console=Console(stderr=True), disable=len(rows) == 1, transient=True
    ):
        picture = read_image(image)
        marks = find_drawn(answer, picture.size, config)
        masks = None if find_masks is None else find_masks(picture, marks)
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_marks(picture, marks, masks, config.font).save(path)
        counts.append(len(marks))
    without = counts.count(0)
    note = f"; {without} of {len(counts)} answers hold none" if without else ""
    console.print(f"{sum(counts)} boxes and points in {config.output}{note}", markup=False, soft_wrap=True)
    return int(not any(counts))


def find_drawn(answer: str, size: tuple[int, int], config: DrawConfig) -> list[Mark]:
    """The marks of an answer in a picture's pixels."""
    marks = [Mark(mark.label or config.label, mark.place) for mark in find_marks(answer)]
    if config.boxes == "square":
        return in_picture(marks, size, padded_as(config.padding, config.grid))
    if config.boxes == "picture":
        return [Mark(mark.label, to_pixels(mark.place, size)) for mark in marks]
    return marks


def _rows(config: DrawConfig) -> Iterator[tuple[str, str, Path]]:
    """Picture, answer and file to write."""
    if config.answers is None:
        yield str(config.image), str(config.answer), Path(config.output)
        return
    for number, row in enumerate(read_records(config.answers), start=1):
        image, answer = row.get("image"), row.get("answer")
        if not isinstance(image, str) or not isinstance(answer, str):
            raise UserError(
                f"{config.answers}: line {number} has image {image!r} and answer {answer!r}. Use lines with "
                "both as text, as generate --output writes them for pictures."
            )
        yield image, answer, Path(config.output) / f"{number:05d}-{Path(image).stem}.png"
