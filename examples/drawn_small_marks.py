"""Wide pictures with small marks on cards, and questions with exact answers: data where resolution matters.

Command:   python examples/drawn_small_marks.py --output data/small_marks
Hardware:  1 CPU core
Time:      15 seconds for 2 x 600 pictures
Expected:  data/small_marks/DOMAIN/{train,val,test}_{vqa,grounding}.jsonl, and the pictures beside them

Every picture holds three cards, at the left, in the middle and at the right, which look alike from afar (or
one of them); a small mark on each says what it is. In the domain ``marks`` that is a coloured shape, in
``codes`` a letter and a digit on ruled paper, in ``signs`` a white shape on a coloured card. Questions ask
for the mark at a place, or for the box of the card that has a mark: so where is easy and what is not.
Pictures are 2 and 3 times as wide as high: padded at the end, the lower rows of sub-images hold padding
alone. All follows from the seed.

Records are those of the tasks ``vqa`` and ``grounding`` (docs/sphinx-data.md), and what ``evaluate choice``
and ``evaluate refcoco`` read.
"""

import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import auto_cli
from rich.console import Console
from rich.progress import track

if TYPE_CHECKING:
    from PIL.Image import Image

PLACES = ("at the left", "in the middle", "at the right")
COLOURS = {
    "red": (206, 36, 36),
    "green": (32, 138, 62),
    "blue": (34, 84, 208),
    "orange": (232, 132, 20),
    "purple": (132, 56, 172),
    "black": (28, 28, 28),
}
SHAPES = ("circle", "square", "triangle", "star", "cross")
LETTERS = "AEKOTX"
DIGITS = "0123456789"
FINE = 8
"""Shapes are drawn so many times larger, and reduced."""


@dataclass(frozen=True)
class Domain:
    """What the words on cards are, and how they are asked for."""

    words: tuple[Sequence[str], Sequence[str]]
    """Of which a mark has one each."""
    questions: tuple[tuple[str, str], tuple[str, str]]
    """About each word: its kind, and the question for a place."""
    card: str
    """Names a card by both words."""


_SHAPE = ("shape", "Which shape is {}?")
DOMAINS = {
    "marks": Domain(
        (tuple(COLOURS), SHAPES),
        (("colour", "What colour is the shape {}?"), _SHAPE),
        "the card with the {} {}",
    ),
    "codes": Domain(
        (LETTERS, DIGITS),
        (("letter", "Which letter is {}?"), ("digit", "Which digit is {}?")),
        "the card with {}{}",
    ),
    "signs": Domain(
        (tuple(COLOURS), SHAPES),
        (("colour", "What colour is the card {}?"), _SHAPE),
        "the {} card with the {}",
    ),
}


@dataclass(kw_only=True)
class Drawing:
    """What to draw."""

    output: Path = Path("data/small_marks")
    """Folder to write."""
    domains: list[str] = field(default_factory=lambda: ["marks", "codes"])
    """Which kinds of pictures: marks, codes, signs."""
    train: int = 500
    """Pictures to train on, of each domain; each has four questions."""
    val: int = 50
    """Pictures to choose settings by."""
    test: int = 50
    """Pictures to report."""
    width: int = 672
    """Of a picture, in pixels."""
    cards: int = 3
    """Cards of a picture: 3, or 1 at one of the places, so that no question has to say where."""
    ratios: list[int] = field(default_factory=lambda: [2, 3])
    """Width over height, picture by picture."""
    mark: int = 16
    """Height of a shape in pixels; letters are half as high again. An encoder sees
    mark * view side * grid / width of it."""
    seed: int = 0
    """Of all choices."""


@dataclass(frozen=True)
class Card:
    """One card of a picture."""

    name: tuple[str, str]
    """Colour and shape, or letter and digit."""
    box: tuple[int, int, int, int]
    """Left, top, right, bottom in pixels."""


def draw_picture(
    domain: str, number: int, drawing: Drawing, chance: random.Random
) -> tuple["Image", list[Card]]:
    """One picture and its cards, from left to right."""
    from PIL import Image, ImageDraw

    width, height = drawing.width, drawing.width // drawing.ratios[number % len(drawing.ratios)]
    shade = chance.randint(225, 248)
    picture = Image.new("RGB", (width, height), (shade, shade, shade - (14 if domain == "codes" else 0)))
    pen = ImageDraw.Draw(picture)
    if domain == "codes":
        for line in range(chance.randint(6, 14), height, 14):
            pen.line((0, line, width, line), fill=(206, 214, 226))
    cards = []
    names = _names(domain, chance)
    places = range(3) if drawing.cards == len(PLACES) else [chance.randrange(3)]
    for place, name in zip(places, names, strict=False):
        box = _card_box(place, width, height, drawing.mark, chance)
        pen.rectangle(box, fill=(255, 255, 255), outline=(90, 90, 90), width=2)
        _draw_mark(picture, domain, name, box, drawing.mark, chance)
        cards.append(Card(name, box))
    return picture, cards


def _names(domain: str, chance: random.Random) -> list[tuple[str, str]]:
    """Three marks that differ in both words, so that each word alone names one."""
    first, second = (chance.sample(words, 3) for words in DOMAINS[domain].words)
    return list(zip(first, second, strict=True))


def _card_box(
    place: int, width: int, height: int, mark: int, chance: random.Random
) -> tuple[int, int, int, int]:
    """A card in its third of the picture, of about four marks by three."""
    across, down = mark * chance.randint(42, 56) // 10, mark * chance.randint(28, 40) // 10
    third = width // 3
    left = place * third + chance.randint(4, third - across - 4)
    top = chance.randint(4, height - down - 4)
    return left, top, left + across, top + down


def _draw_mark(
    picture: "Image", domain: str, name: tuple[str, str], box: tuple[int, int, int, int], mark: int,
    chance: random.Random,
) -> None:  # fmt: skip
    """A mark somewhere on its card."""
    from PIL import ImageDraw, ImageFont

    high, wide = (_letters(mark), _letters(mark) * 2) if domain == "codes" else (mark, mark)
    left = chance.randint(box[0] + 4, max(box[2] - wide - 4, box[0] + 4))
    top = chance.randint(box[1] + 4, max(box[3] - high - 4, box[1] + 4))
    if domain == "codes":
        font = ImageFont.load_default(high * 1.37)  # digits are then so high
        pen = ImageDraw.Draw(picture)
        at = (left + 1, top + high)
        pen.text(at, "".join(name), fill=(30, 30, 40), font=font, anchor="ls", stroke_width=1)
        return
    colour = COLOURS[name[0]]
    if domain == "signs":
        ImageDraw.Draw(picture).rectangle(box, fill=colour, outline=(90, 90, 90), width=2)
        colour = (255, 255, 255)
    picture.paste(colour, (left, top), _shape_mask(name[1], mark))


def _letters(mark: int) -> int:
    """Height of letters: their strokes are thin, so they are larger than shapes."""
    return mark * 3 // 2


def _shape_mask(shape: str, mark: int) -> "Image":
    """A shape as how much of each pixel it covers."""
    from PIL import Image, ImageDraw

    side = mark * FINE
    mask = Image.new("L", (side, side))
    pen, end = ImageDraw.Draw(mask), side - 1
    if shape == "circle":
        pen.ellipse((0, 0, end, end), fill=255)
    elif shape == "square":
        pen.rectangle((side * 0.06, side * 0.06, side * 0.94, side * 0.94), fill=255)
    elif shape == "triangle":
        pen.polygon([(end / 2, 0), (end, end), (0, end)], fill=255)
    elif shape == "cross":
        pen.rectangle((side * 0.35, 0, side * 0.65, end), fill=255)
        pen.rectangle((0, side * 0.35, end, side * 0.65), fill=255)
    else:
        turns = [(math.pi * (step / 5 - 0.5), 0.5 if step % 2 == 0 else 0.2) for step in range(10)]
        pen.polygon(
            [(side * (0.5 + r * math.cos(a)), side * (0.5 + r * math.sin(a))) for a, r in turns], fill=255
        )
    return mask.resize((mark, mark), Image.Resampling.BOX)


def questions(
    domain: str, cards: list[Card], chance: random.Random
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Questions with answers in words about the cards, and one for the box of a card.

    Args:
        domain: of the picture.
        cards: of it.
        chance: decides which cards.

    Returns:
        Three questions of the task vqa, two where there is one card, and the record of the task grounding.
    """
    asked: list[dict[str, Any]] = []
    words = (0, 1, 1) if len(cards) > 1 else (0, 1)
    chosen = chance.sample(range(3), 3) if len(cards) > 1 else [0, 0]
    for word, place in zip(words, chosen, strict=True):
        kind, text = DOMAINS[domain].questions[word]
        where = PLACES[place] if len(cards) > 1 else "here"
        asked.append({"kind": kind, "question": text.format(where), "answer": cards[place].name[word]})
    card = chance.choice(cards)
    said = DOMAINS[domain].card.format(*card.name)
    return asked, {"kind": "box", "question": said, "bbox": list(card.box)}


def write_split(domain: str, split: str, count: int, drawing: Drawing) -> None:
    """Draw the pictures of a split and write its two files of records."""
    folder = drawing.output / domain
    (folder / split).mkdir(parents=True, exist_ok=True)
    lines: dict[str, list[str]] = {"vqa": [], "grounding": []}
    for number in track(range(count), f"{domain} {split}", console=Console(stderr=True), transient=True):
        chance = random.Random(f"{drawing.seed} {domain} {split} {number}")
        picture, cards = draw_picture(domain, number, drawing, chance)
        path = folder / split / f"{number:05d}.png"
        picture.save(path)
        of_picture = {"image": path.as_posix(), "width": picture.width, "height": picture.height}
        asked, box = questions(domain, cards, chance)
        for place, row in enumerate([*asked, box]):
            kind = "grounding" if row is box else "vqa"
            lines[kind].append(json.dumps({"id": f"{split}-{number}-{place}", **of_picture, **row}))
    for kind, rows in lines.items():
        (folder / f"{split}_{kind}.jsonl").write_text("".join(row + "\n" for row in rows), encoding="utf-8")


def main(drawing: Drawing) -> None:
    """Draw all domains and splits."""
    for domain in drawing.domains:
        for split, count in (("train", drawing.train), ("val", drawing.val), ("test", drawing.test)):
            write_split(domain, split, count, drawing)
    pictures = len(drawing.domains) * (drawing.train + drawing.val + drawing.test)
    Console().print(f"{pictures} pictures and their questions in {drawing.output}", markup=False)


if __name__ == "__main__":
    main(auto_cli(Drawing, as_positional=False))
