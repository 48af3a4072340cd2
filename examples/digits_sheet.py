"""The sheet of the study on drawn and spoken digits: pictures and spectrograms with the answers to them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from digits import QUESTIONS, WORDS
from whisper_tiny import RATE

from imagebind_llm.processing.audio import log_mel, read_sound

_SHOWN = ("Which digit is it?", "Which digit comes after it?", "Is it even or odd?")
_RIGHT, _WRONG = "#1a7f37", "#c62828"


def draw_sheet(result: dict[str, Any], path: Path) -> None:
    """Draws a column per digit: a picture and what was said of it, a sound and what was said of it.

    Args:
        result: of one seed of ``sound_digits``.
        path: the picture file.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, places = pyplot.subplots(2, 10, figsize=(15, 4.6), layout="constrained")
    for row, (kind, name) in enumerate((("image", "image"), ("sound", "sound"))):
        files: Sequence[str] = result["files"][kind]
        digits = result["digits"][kind]
        for digit in range(10):
            place = max(n for n, one in enumerate(digits) if one == digit)
            axes = places[row, digit]
            if kind == "image":
                axes.imshow(pyplot.imread(files[place]))
            else:
                axes.imshow(_spectrogram(files[place]), origin="lower", aspect="auto", cmap="magma")
            axes.set(xticks=[], yticks=[])
            if kind == "sound":
                axes.set_title(f"{Path(files[place]).stem.split('_')[1]} says {WORDS[digit]}", fontsize=8)
            _write(axes, result["answers"][name], place, digit)
    figure.savefig(path, dpi=75)
    pyplot.close(figure)


def _write(axes: Any, answers: dict[str, Any], place: int, digit: int) -> None:
    """The answers below a picture, green where they are right."""
    for line, question in enumerate(_SHOWN):
        said = answers[question]["said"][place]
        plain = "".join(one for one in said if one.isascii() and one.isprintable() and one != "$")
        axes.text(
            0.5,
            -0.1 - 0.13 * line,
            f"{('is', 'next', 'kind')[line]}: {plain[:14]}",
            transform=axes.transAxes,
            ha="center",
            va="top",
            fontsize=9,
            color=_RIGHT if said == QUESTIONS[question](digit) else _WRONG,
        )


def _spectrogram(path: str) -> np.ndarray:
    """Log-mel bands over time."""
    return log_mel(read_sound(path, RATE)[0].numpy())
