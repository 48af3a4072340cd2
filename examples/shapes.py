"""Drawn scenes with exact captions: one to three coloured shapes, where they are, and five ways to say it.

A caption is made from a table of sentences, and read by the same table, so what a model says about a picture
can be checked word for word: how many things, which ones, and where. Some pairs of colour and shape are never
drawn for training: pictures that hold one of them ask for a combination that was not seen. What is unusual: a
scene keeps away from the border, which most encoders cut off. Models are not known here.

Dimensions: pictures are SIDE x SIDE pixels.
"""

import math
import random
import re
from collections import Counter
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

SIDE = 256
COLOURS = {
    "red": (214, 40, 40),
    "green": (38, 150, 70),
    "blue": (36, 86, 214),
    "yellow": (244, 206, 24),
    "purple": (140, 60, 180),
    "black": (24, 24, 24),
}
SHAPES = ("circle", "square", "triangle", "star", "cross")
SIZES = {"small": 17, "large": 31}
"""Word -> half the height in pixels."""
UNSEEN = {
    ("red", "star"),
    ("green", "square"),
    ("blue", "cross"),
    ("yellow", "triangle"),
    ("purple", "circle"),
}
"""Pairs of colour and shape that no training picture holds."""
PLACES = {
    f"{row} {column}".strip() or "middle": (x, y)
    for (row, y), (column, x) in product(
        (("top", 64), ("", 128), ("bottom", 192)), (("left", 64), ("", 128), ("right", 192))
    )
}
"""Where a single thing is -> centre in pixels."""

_ONE = (
    "a {0} in the {place}",
    "there is a {0} in the {place}",
    "in the {place} there is a {0}",
    "one shape: a {0} in the {place}",
    "the picture shows a {0} in the {place}",
)
SENTENCES: dict[str, tuple[str, ...]] = {
    **{place: tuple(text.replace("{place}", place) for text in _ONE) for place in PLACES},
    "row of 2": (
        "a {0} to the left of a {1}",
        "a {1} to the right of a {0}",
        "a {0} on the left and a {1} on the right",
        "there is a {0} to the left of a {1}",
        "two shapes: a {0} on the left and a {1} on the right",
    ),
    "column of 2": (
        "a {0} above a {1}",
        "a {1} below a {0}",
        "a {0} at the top and a {1} at the bottom",
        "there is a {0} above a {1}",
        "two shapes: a {0} at the top and a {1} at the bottom",
    ),
    "row of 3": (
        "from left to right a {0}, a {1} and a {2}",
        "a {0}, a {1} and a {2} from left to right",
        "a {1} between a {0} on the left and a {2} on the right",
        "a {0} on the left, a {1} in the middle and a {2} on the right",
        "three shapes from left to right: a {0}, a {1} and a {2}",
    ),
    "column of 3": (
        "from top to bottom a {0}, a {1} and a {2}",
        "a {0}, a {1} and a {2} from top to bottom",
        "a {1} between a {0} at the top and a {2} at the bottom",
        "a {0} at the top, a {1} in the middle and a {2} at the bottom",
        "three shapes from top to bottom: a {0}, a {1} and a {2}",
    ),
}
"""Where things are -> what says so; {0}, {1}, {2} are the things from left to right or from top to bottom."""


@dataclass(frozen=True)
class Thing:
    """One shape."""

    size: str
    colour: str
    shape: str

    def __str__(self) -> str:
        return f"{self.size} {self.colour} {self.shape}"


@dataclass(frozen=True)
class Scene:
    """What a picture shows."""

    things: tuple[Thing, ...]
    """From left to right or from top to bottom."""
    layout: str
    """A key of ``SENTENCES``."""

    @property
    def captions(self) -> list[str]:
        """All that may be said."""
        return [text.format(*self.things) for text in SENTENCES[self.layout]]

    @property
    def unseen(self) -> bool:
        """Whether it holds a pair of colour and shape that training lacks."""
        return any((thing.colour, thing.shape) in UNSEEN for thing in self.things)


def draw_scenes(count: int, seed: int, unseen: bool = False) -> list[Scene]:
    """Random scenes, all different: one thing in a ninth of them, two or three in the others.

    Fewer single things, because there are only 450 ways to draw one.

    Args:
        count: how many.
        seed: of the random choices.
        unseen: whether each holds a pair that training lacks, or none does.

    Returns:
        Scenes; different seeds may share some.
    """
    chance = random.Random(seed)
    scenes: dict[Scene, None] = {}
    while len(scenes) < count:
        number = chance.choices((1, 2, 3), weights=(1, 4, 4))[0]
        things = tuple(
            Thing(chance.choice(list(SIZES)), chance.choice(list(COLOURS)), chance.choice(SHAPES))
            for _ in range(number)
        )
        layouts = list(PLACES) if number == 1 else [f"row of {number}", f"column of {number}"]
        scene = Scene(things, chance.choice(layouts))
        if scene.unseen == unseen:
            scenes[scene] = None
    return list(scenes)


def read_caption(text: str) -> Scene | None:
    """The scene that a caption describes in one of the known ways; None for any other text."""
    words = " ".join(text.lower().split()).rstrip(".")
    for layout, pattern, order in _PATTERNS:
        if found := pattern.fullmatch(words):
            things = dict(zip(order, found.groups(), strict=True))
            return Scene(tuple(Thing(*things[place].split()) for place in sorted(things)), layout)
    return None


def agreement(text: str, scene: Scene) -> dict[str, bool]:
    """What of a caption is right: ``count``, ``colours``, ``shapes``, ``sizes``, ``position`` and ``all``.

    Colours, shapes and sizes are compared as they are named anywhere in the text, in any order. The position
    is right if the text reads as a known caption of the picture's layout, and its things, at least by colour
    and shape, stand in the picture's order.
    """
    said = [Thing(*found) for found in _THING.findall(text.lower())]
    read = read_caption(text)
    return {
        "count": len(said) == len(scene.things),
        "colours": _named(said, "colour") == _named(scene.things, "colour"),
        "shapes": _named(said, "shape") == _named(scene.things, "shape"),
        "sizes": _named(said, "size") == _named(scene.things, "size"),
        "position": read is not None and _order(read) == _order(scene),
        "all": read == scene,
    }


def draw(scene: Scene, seed: int) -> "Image":
    """The picture; ``seed`` shifts things a little and chooses the light background."""
    from PIL import Image, ImageDraw

    chance = random.Random(seed)
    scale = 3  # drawn larger and reduced, for smooth edges
    background = tuple(chance.randrange(225, 256) for _ in range(3))
    image = Image.new("RGB", (SIDE * scale, SIDE * scale), background)
    pen = ImageDraw.Draw(image)
    for thing, (x, y) in zip(scene.things, _centres(scene, chance), strict=True):
        radius = SIZES[thing.size] * chance.uniform(0.92, 1.08)
        _draw_shape(pen, thing, (x * scale, y * scale), radius * scale)
    return image.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def _centres(scene: Scene, chance: random.Random) -> list[tuple[float, float]]:
    """Where the things of a scene are, in pixels."""
    if scene.layout in PLACES:
        x, y = PLACES[scene.layout]
        return [(x + chance.uniform(-8, 8), y + chance.uniform(-8, 8))]
    steps = (84, 172) if len(scene.things) == 2 else (58, 128, 198)
    across = chance.uniform(76, 180)
    along = [(step + chance.uniform(-3, 3), across + chance.uniform(-8, 8)) for step in steps]
    return along if scene.layout.startswith("row") else [(x, y) for y, x in along]


def _draw_shape(pen: "ImageDraw", thing: Thing, centre: tuple[float, float], radius: float) -> None:
    """One filled shape."""
    x, y = centre
    colour = COLOURS[thing.colour]
    box = (x - radius, y - radius, x + radius, y + radius)
    if thing.shape == "circle":
        pen.ellipse(box, fill=colour)
    elif thing.shape == "square":
        pen.rectangle(box, fill=colour)
    elif thing.shape == "cross":
        arm = radius * 0.32
        pen.rectangle((x - radius, y - arm, x + radius, y + arm), fill=colour)
        pen.rectangle((x - arm, y - radius, x + arm, y + radius), fill=colour)
    else:
        radii = (1.1, 1.1) if thing.shape == "triangle" else (1.15, 0.48)
        pen.polygon(_corners(x, y, radius, 3 if thing.shape == "triangle" else 10, radii), fill=colour)


def _corners(
    x: float, y: float, radius: float, number: int, radii: tuple[float, float]
) -> list[tuple[float, float]]:
    """Corners of a polygon whose first one is at the top; they are at two distances in turn."""
    turn = 2 * math.pi / number
    return [
        (
            x + radius * radii[k % 2] * math.sin(k * turn),
            y - radius * radii[k % 2] * math.cos(k * turn),
        )
        for k in range(number)
    ]


def _named(things: "list[Thing] | tuple[Thing, ...]", attribute: str) -> Counter[str]:
    """How often each colour, shape or size is named."""
    return Counter(getattr(thing, attribute) for thing in things)


def _order(scene: Scene) -> tuple[str, list[tuple[str, str]]]:
    """Layout and things without their sizes."""
    return scene.layout, [(thing.colour, thing.shape) for thing in scene.things]


_THING = re.compile(rf"\b({'|'.join(SIZES)}) ({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})\b")
_SLOT = _THING.pattern.replace("(", "(?:")
_PATTERNS = [
    (
        layout,
        re.compile(re.sub(r"\\\{\d\\\}", lambda _: f"({_SLOT})", re.escape(text))),
        [int(place) for place in re.findall(r"\{(\d)\}", text)],
    )
    for layout, texts in SENTENCES.items()
    for text in texts
]
"""Layout, what a sentence looks like, and which thing stands in which of its gaps."""
