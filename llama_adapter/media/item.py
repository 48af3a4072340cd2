"""One medium beside a text, and several of them as a mix: inputs with weights.

Written ``PATH`` or ``PATH:WEIGHT`` on a command line, in a prompt file or in a chat; a text stands in the
path's place. Which modalities there are is the encoder's business (``imagebind_llm``), and so is what weights
do; here are only their names.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from llama_adapter.errors import UserError

MODALITIES = ("image", "video", "text", "audio", "depth", "thermal", "imu", "point")
"""As options, fields of records and commands of a chat are called."""

Mixing: TypeAlias = Literal["published", "unit"]
"""``published``: a mix is as long as weights and angles make it. ``unit``: it is brought to length 1."""

SeveralImages: TypeAlias = Literal["refuse", "average"]
"""``refuse`` several images in one row, or ``average`` what the conditioner makes of each."""

_WEIGHTED = re.compile(r"(.+):([+-]?(?:\d+\.?\d*|\.\d+))", re.DOTALL)


@dataclass(frozen=True)
class MediaItem:
    """One medium: an image, a sound, a text beside the prompt."""

    modality: str
    """One of ``MODALITIES``."""
    content: Any
    """Its file's path, the file's bytes, or the text itself; an image may also be a picture of Pillow. None
    where a record only says that a medium stands there."""
    weight: float = 1.0
    """Its weight."""

    def __str__(self) -> str:
        return f"{self.modality} {self.content!r}" + (f" x {self.weight:g}" if self.weight != 1 else "")


@dataclass(frozen=True)
class Mix:
    """All inputs of one prompt."""

    inputs: tuple[MediaItem, ...]
    """At least one."""

    def __str__(self) -> str:
        return " + ".join(map(str, self.inputs))

    @property
    def image(self) -> str | None:
        """The file, where it is one image that counts once: what any model that sees can be shown."""
        (first, *others) = self.inputs
        return first.content if first.modality == "image" and first.weight == 1 and not others else None

    @property
    def images(self) -> tuple[Any, ...] | None:
        """The images, where there is nothing else and each counts once."""
        plain = all(one.modality == "image" and one.weight == 1 for one in self.inputs)
        return tuple(one.content for one in self.inputs) if plain else None


def read_input(modality: str, written: str, folder: Path = Path()) -> MediaItem:
    """One input.

    Args:
        modality: what it is.
        written: a file's or text's end of the form ``:0.5`` is its weight, unless a file has this whole name.
        folder: relative paths start here.

    Raises:
        UserError: it is empty, or the file is not there.
    """
    is_text = modality == "text"
    found = None if not is_text and _file(written, folder).is_file() else _WEIGHTED.fullmatch(written)
    content, weight = (found[1], float(found[2])) if found else (written, 1.0)
    if not content.strip():
        raise UserError(f"The input {modality} is {written!r}. Use a {'text' if is_text else 'file'}.")
    if is_text:
        return MediaItem(modality, content, weight)
    path = _file(content, folder)
    if not path.is_file():
        raise UserError(
            f"The {modality} {str(path)!r} does not exist. Use PATH, or PATH:WEIGHT such as a.jpg:0.7."
        )
    return MediaItem(modality, str(path), weight)


def read_inputs(given: Mapping[str, Iterable[str]], folder: Path = Path()) -> list[MediaItem]:
    """Inputs of several modalities.

    Args:
        given: modality -> as they are written.
        folder: relative paths start here.

    Raises:
        UserError: see ``read_input``.
    """
    return [read_input(name, one, folder) for name in MODALITIES for one in given.get(name, ())]


def as_shown(inputs: Sequence[MediaItem]) -> "Mix | str | None":
    """What a model is shown: nothing, an image's file, or a mix."""
    if not inputs:
        return None
    mix = Mix(tuple(inputs))
    return mix.image or mix


def _file(name: str, folder: Path) -> Path:
    return folder / Path(name).expanduser()
