"""`generate-image`: files of any modalities, mixed with weights -> a picture.

The picture is drawn by an unCLIP model (``unclip.py``); the towers are gone from memory by then.
"""

from dataclasses import dataclass, field, fields
from pathlib import Path

import torch
from jaxtyping import Float
from rich.console import Console
from torch import Tensor

from imagebind_llm.cache.blending import open_blend
from imagebind_llm.cache.encoders import encoder_config
from imagebind_llm.cache.visual_cache import CacheConfig
from imagebind_llm.imagebind.model import ImageBindModel
from imagebind_llm.processing.processor import TOWERS, ImageBindProcessor, to_device
from imagebind_llm.unclip import DrawingConfig, draw, drawing_vectors, load_pipeline
from llama_adapter.errors import UserError
from llama_adapter.generation.run import check_writable
from llama_adapter.generation.session import choose_device
from llama_adapter.media import MODALITIES, MediaItem, read_inputs


@dataclass(kw_only=True)
class GenerateImageConfig(DrawingConfig):
    """Draw what inputs of any modalities have in common. Every input is FILE or FILE:WEIGHT."""

    model: str
    """Folder of an ImageBind model."""

    unclip: str
    """Folder or hub name of an unCLIP model of diffusers that draws from embeddings of 1,024 values."""

    output: str
    """Picture file to write; of several pictures each gets its number before the ending."""

    image: list[str] = field(default_factory=list)
    """An image; may be repeated, as all of these."""

    video: list[str] = field(default_factory=list)
    """A video."""

    text: list[str] = field(default_factory=list)
    """A text, or TEXT:WEIGHT."""

    audio: list[str] = field(default_factory=list)
    """A sound."""

    depth: list[str] = field(default_factory=list)
    """A depth map."""

    thermal: list[str] = field(default_factory=list)
    """A thermal picture."""

    imu: list[str] = field(default_factory=list)
    """A motion."""

    point: list[str] = field(default_factory=list)
    """A point cloud."""

    visual_cache: str | None = None
    """Folder or index file of a visual cache of ImageBind's embeddings, towards whose pictures the mix is
    drawn."""

    cache_weight: float = 0.5
    """Of the cache: 0 is the mix alone, 1 its neighbours alone."""

    device: str = "auto"
    """Where to run, such as `cpu` or `cuda:1`; `auto` takes a GPU if there is one."""

    @property
    def inputs(self) -> list[MediaItem]:
        """What is mixed.

        Raises:
            UserError: there is nothing, or a file is missing.
        """
        found = read_inputs({name: getattr(self, name) for name in MODALITIES})
        if not found:
            raise UserError(f"There is nothing to draw. Use one of --{', --'.join(MODALITIES)}.")
        return found


def generate_image(config: GenerateImageConfig) -> int:
    """The `generate-image` verb.

    Returns:
        The exit code.

    Raises:
        UserError: an input or a model cannot be used.
    """
    output = Path(config.output).expanduser()
    check_writable(output)
    inputs, device = config.inputs, choose_device(config.device)
    blend = None
    if config.visual_cache is not None:
        asked = CacheConfig(weight=config.cache_weight)
        blend = open_blend(config.visual_cache, encoder_config(config.model, None), asked)
    features = _features(config.model, inputs, device)
    vectors = drawing_vectors(features, [one.weight for one in inputs], blend)
    drawing = DrawingConfig(**{one.name: getattr(config, one.name) for one in fields(DrawingConfig)})
    pictures = draw(load_pipeline(config.unclip, device), vectors, drawing)
    console = Console(highlight=False)
    for number, picture in enumerate(pictures, start=1):
        path = output if len(pictures) == 1 else output.with_stem(f"{output.stem}-{number}")
        picture.save(path)
        console.print(f"written: {path}", markup=False, soft_wrap=True)
    return 0


@torch.no_grad()
def _features(
    folder: str, inputs: list[MediaItem], device: torch.device
) -> list[tuple[str, Float[Tensor, "1 E"]]]:
    """Modality and vector before normalisation of every input."""
    towers = sorted({TOWERS.get(one.modality, one.modality) for one in inputs})
    model = ImageBindModel.from_pretrained(folder, modalities=towers).eval().to(device)
    processor = ImageBindProcessor.from_pretrained(folder)
    found = []
    for one in inputs:
        tower = TOWERS.get(one.modality, one.modality)
        values = to_device(processor({tower: [one.content]}), device)
        found.append((one.modality, model(values).features[tower].float()))
    return found
