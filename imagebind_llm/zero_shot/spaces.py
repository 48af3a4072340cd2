"""What embeds records of several modalities in one space: ImageBind, or encoders that share another space.

Whoever is not among them brings an object of the form of ``Space``.

Dimensions: B records, E width of the space.
"""

import importlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from imagebind_llm.clips import Clips
from imagebind_llm.imagebind.config import ImageBindConfig
from imagebind_llm.imagebind.model import ImageBindModel
from imagebind_llm.processing.audio import read_sound
from imagebind_llm.processing.processor import TOWERS, ImageBindProcessor, to_device
from llama_adapter.data.images import read_image
from llama_adapter.errors import UserError


@runtime_checkable
class Space(Protocol):
    """Encoders that share a space."""

    modalities: Sequence[str]
    """What it can embed: some of image, video, text, audio, depth, thermal, imu and point."""

    def load(self, modality: str, content: str | Path) -> Any:
        """One record: a file read, or a text.

        Raises:
            UserError: it cannot be used.
        """

    def embed(self, modality: str, loaded: list[Any]) -> Float[Tensor, "B E"]:
        """Embeddings of records, on the CPU; their lengths may differ."""


@dataclass
class ImageBindSpace:
    """ImageBind's towers."""

    model: ImageBindModel
    """The towers that are needed."""
    processor: ImageBindProcessor
    """Its processor."""
    modalities: Sequence[str] = field(init=False)
    """Those of the towers."""

    def __post_init__(self) -> None:
        towers = list(self.model.towers)
        self.modalities = [name for name, tower in TOWERS.items() if tower in towers]
        self.modalities += [name for name in towers if name != "vision"]

    def load(self, modality: str, content: str | Path) -> Any:
        """See ``Space``."""
        tower = TOWERS.get(modality, modality)
        return self.processor({tower: [content]})[tower]

    @torch.no_grad()
    def embed(self, modality: str, loaded: list[Any]) -> Float[Tensor, "B E"]:
        """See ``Space``."""
        tower = TOWERS.get(modality, modality)
        values: Any
        if modality == "point":
            values = [cloud for clouds in loaded for cloud in clouds]
        elif modality == "text":
            values = torch.cat(loaded)
        else:
            counts = tuple(count for clips in loaded for count in clips.counts)
            values = Clips(torch.cat([clips.values for clips in loaded]), counts)
        inputs = to_device({tower: values}, self.model.device)
        return self.model(inputs).embeddings[tower].float().cpu()


@dataclass
class DualEncoderSpace:
    """A model of transformers with one encoder of texts and others of images or sounds, as CLIP and CLAP."""

    model: Any
    """With ``get_text_features``, and ``get_image_features`` or ``get_audio_features``."""
    processor: Any
    """Its processor."""
    modalities: Sequence[str] = field(init=False)
    """Those that the model has."""

    def __post_init__(self) -> None:
        known = ("text", "image", "audio")
        self.modalities = [name for name in known if hasattr(self.model, f"get_{name}_features")]

    def load(self, modality: str, content: str | Path) -> Any:
        """See ``Space``."""
        if modality == "text":
            return str(content)
        if modality == "image":
            return read_image(content)
        return read_sound(content, self.processor.feature_extractor.sampling_rate)[0].numpy()

    @torch.no_grad()
    def embed(self, modality: str, loaded: list[Any]) -> Float[Tensor, "B E"]:
        """See ``Space``."""
        if modality == "text":
            # SigLIP was trained on texts of full length; for the others it makes no difference
            inputs = self.processor(text=loaded, padding="max_length", truncation=True, return_tensors="pt")
        elif modality == "image":
            inputs = self.processor(images=loaded, return_tensors="pt")
        else:
            rate = self.processor.feature_extractor.sampling_rate
            inputs = self.processor(audio=loaded, sampling_rate=rate, return_tensors="pt")
        found = getattr(self.model, f"get_{modality}_features")(**inputs.to(self.model.device))
        return found.pooler_output.float().cpu()


def open_space(name: str, device: torch.device, modalities: Sequence[str]) -> Space:
    """The encoders that a name says.

    Args:
        name: folder of an ImageBind model or of another one of transformers, or ``module:name`` of a
            ``Space``, or of a function that takes a device and returns one.
        device: where they run.
        modalities: what they must embed; ImageBind's other towers are not loaded.

    Raises:
        UserError: there is no such model, or it does not embed these.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        space = _of_folder(path, device, modalities)
    elif ":" in name:
        space = _of_program(name, device)
    else:
        raise UserError(f"The model {name!r} is no folder. Use a model's folder, or module:name of a Space.")
    if absent := [modality for modality in modalities if modality not in space.modalities]:
        raise UserError(
            f"The model {name!r} does not embed {absent[0]!r}, but {', '.join(space.modalities)}. "
            "Use one that does, or other records."
        )
    return space


def _of_folder(path: Path, device: torch.device, modalities: Sequence[str]) -> Space:
    """A model saved in a folder."""
    from transformers import AutoModel, AutoProcessor

    try:
        content = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{str(path)!r} has no config.json to read ({error}). Use a model's folder."
        ) from error
    if content.get("model_type") == ImageBindConfig.model_type:
        wanted = sorted({TOWERS.get(name, name) for name in modalities} & set(content.get("towers", {})))
        model = ImageBindModel.from_pretrained(path, modalities=wanted)
        return ImageBindSpace(model.eval().to(device), ImageBindProcessor.from_pretrained(path))
    try:
        loaded: Any = AutoModel.from_pretrained(path).eval().to(device)
        return DualEncoderSpace(loaded, AutoProcessor.from_pretrained(path))
    except (OSError, ValueError) as error:
        raise UserError(f"{str(path)!r} cannot be loaded: {error} Use a model like CLIP or CLAP.") from error


def _of_program(name: str, device: torch.device) -> Space:
    """A space that a program defines."""
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(f"{name!r} cannot be imported: {error}. Use module:name of a Space.") from error
    made = found(device) if callable(found) else found
    if not isinstance(made, Space):
        raise UserError(f"{name!r} gives {type(made).__name__}. Use a Space: modalities, load and embed.")
    return made
