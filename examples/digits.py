"""Drawn digits of many kinds, and questions about a digit with their answers.

Fonts, sizes, places, turns, colours and noise differ from picture to picture; some fonts are kept for
testing. Some pairs of question and digit are never asked in training, so that an answer to them has
to be put together from knowing the digit and knowing the question. Models are not known here.

Dimensions: pictures are SIDE x SIDE pixels.
"""

import random
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 224
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
FONTS = (
    "DejaVuSans.ttf",
    "DejaVuSans-Bold.ttf",
    "DejaVuSans-Oblique.ttf",
    "DejaVuSansMono.ttf",
    "DejaVuSansMono-BoldOblique.ttf",
    "DejaVuSerif.ttf",
    "DejaVuSerif-Bold.ttf",
    "STIXGeneralBol.ttf",
    "STIXGeneralItalic.ttf",
    "cmr10.ttf",
    "cmb10.ttf",
    "cmss10.ttf",
)
TEST_FONTS = ("DejaVuSansMono-Bold.ttf", "DejaVuSerif-Italic.ttf", "STIXGeneral.ttf", "cmtt10.ttf")
"""Fonts that no training picture uses."""

CAPTIONS = ("the digit {0}", "a picture of the digit {0}", "{0}", "this is the number {0}", "a drawn {0}")
"""What may be said of a picture; {0} is the digit's word."""

QUESTIONS: dict[str, Callable[[int], str]] = {
    "Which digit is it?": lambda digit: WORDS[digit],
    "Is it even or odd?": lambda digit: ("even", "odd")[digit % 2],
    "Which digit comes after it?": lambda digit: WORDS[(digit + 1) % 10],
    "Which digit comes before it?": lambda digit: WORDS[(digit - 1) % 10],
    "Is it greater than four?": lambda digit: "yes" if digit > 4 else "no",
    "How is it written in figures?": str,
}
"""Question -> the answer for a digit; behind nine comes zero."""
NAMING = "Which digit is it?"


def held_out(question: str, digit: int) -> bool:
    """Whether a pair is not asked in training: two digits of every question but the first."""
    place = list(QUESTIONS).index(question)
    return question != NAMING and digit in (place, (place + 5) % 10)


def draw(digit: int, seed: int, fonts: tuple[str, ...] = FONTS) -> "Image":
    """One picture."""
    import matplotlib
    from PIL import Image, ImageDraw, ImageFont

    chance = random.Random(10 * seed + digit)
    folder = Path(matplotlib.get_data_path()) / "fonts/ttf"
    font = ImageFont.truetype(folder / chance.choice(fonts), chance.randrange(90, 190))
    dark, light = chance.randrange(0, 90), chance.randrange(165, 256)
    ink, paper = (dark, light) if chance.random() < 0.7 else (light, dark)
    tint = [chance.randrange(-30, 31) for _ in range(6)]
    colours = [
        tuple(min(255, max(0, grey + t)) for t in tint[k : k + 3]) for k, grey in ((0, ink), (3, paper))
    ]
    image = Image.new("RGB", (SIDE, SIDE), colours[1])
    middle = (SIDE / 2 + chance.uniform(-18, 18), SIDE / 2 + chance.uniform(-18, 18))
    ImageDraw.Draw(image).text(middle, str(digit), fill=colours[0], font=font, anchor="mm")
    image = image.rotate(chance.uniform(-20, 20), Image.Resampling.BICUBIC, fillcolor=colours[1])
    noise = np.random.default_rng(10 * seed + digit).normal(0, chance.uniform(0, 30), (SIDE, SIDE, 3))
    return Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))
