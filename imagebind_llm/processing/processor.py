"""``ImageBindProcessor``: files and texts of every modality -> what ``ImageBindModel`` takes.

Unusual: it is called with one mapping, modality -> files; images and videos may stand in one list. Packages
for sounds and videos are imported when such a file comes.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from imagebind_llm.clips import Clips, join_records
from imagebind_llm.processing.audio import load_audio
from imagebind_llm.processing.config import ProcessorConfig
from imagebind_llm.processing.frames import shows_film
from imagebind_llm.processing.imu import load_imu
from imagebind_llm.processing.maps import load_depth, load_thermal
from imagebind_llm.processing.pictures import load_picture
from imagebind_llm.processing.point_files import load_points
from imagebind_llm.processing.text import tokenize
from imagebind_llm.processing.video import FRAMES, load_video
from llama_adapter.errors import UserError

Inputs: TypeAlias = dict[str, Clips | Int[Tensor, "R L"] | list[Float[Tensor, "_ 3"]]]
"""Modality -> values."""

TOWERS = {"image": "vision", "video": "vision"}
"""What users call a modality -> its tower, where the names differ."""


class ImageBindProcessor:
    """One loader per modality, with the settings they share."""

    def __init__(self, config: ProcessorConfig | None = None) -> None:
        """Takes the published settings by default."""
        self.config = config or ProcessorConfig()
        self._loaders: dict[str, Callable[[str | Path], Tensor]] = {
            "vision": self._vision,
            "audio": lambda path: load_audio(path, self.config),
            "depth": lambda path: load_depth(path, self.config.depth, self.config.image_size).unsqueeze(0),
            "thermal": lambda path: load_thermal(path, self.config.thermal, self.config.image_size).unsqueeze(
                0
            ),
            "imu": lambda path: load_imu(path, self.config.imu_rate),
        }

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> "ImageBindProcessor":
        """The processor of a folder that ``convert`` or ``save_pretrained`` wrote.

        Raises:
            UserError: there is none.
        """
        return cls(ProcessorConfig.load(folder))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the settings beside the model."""
        self.config.save(folder)

    def __call__(self, files: Mapping[str, str | Path | Sequence[Any]]) -> Inputs:
        """Load everything.

        Args:
            files: modality -> paths; for ``text`` the texts themselves. ``vision`` takes images, also
                pictures of Pillow, and videos.

        Returns:
            What ``ImageBindModel`` takes, on the CPU.

        Raises:
            UserError: a modality is unknown, or a file cannot be used; it is named.
        """
        return {name: self._load(name, given) for name, given in files.items()}

    def _load(
        self, modality: str, given: str | Path | Sequence[Any]
    ) -> Clips | Int[Tensor, "R L"] | list[Float[Tensor, "_ 3"]]:
        """The values of one modality."""
        items = [given] if isinstance(given, str | Path) else list(given)
        if not items:
            raise UserError(f"There is nothing for the modality {modality!r}. Leave it out, or name a file.")
        if modality == "text":
            return tokenize([str(text) for text in items], self.config.keep_end_token)
        if modality == "point":
            return [load_points(path, self.config.point) for path in items]
        if modality not in self._loaders:
            known = sorted([*self._loaders, "text", "point"])
            raise UserError(f"Unknown modality {modality!r}. Use some of {known}.")
        return join_records([self._loaders[modality](path) for path in items])

    def _vision(self, path: Any) -> Float[Tensor, "V 3 2 S S"]:
        """An image, also a picture of Pillow, standing still for two frames; or what moves."""
        if isinstance(path, str | Path) and shows_film(path):
            return load_video(path, self.config)
        picture = load_picture(path, self.config.image_size)
        return torch.stack([picture] * FRAMES, dim=1).unsqueeze(0)


def to_device(inputs: Mapping[str, Clips | Tensor | Sequence[Tensor]], device: Any) -> Inputs:
    """What the processor made, where a model is."""
    return {
        name: [cloud.to(device) for cloud in values] if isinstance(values, Sequence) else values.to(device)
        for name, values in inputs.items()
    }
