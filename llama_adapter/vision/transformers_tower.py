"""Image encoders of transformers: CLIP, SigLIP, DINOv2.

A checkpoint may hold more than the encoder, such as CLIP's text part; the rest is left out. What it lacks
would be random, so it is an error. Preprocessing is done by the Pillow variant of the checkpoint's image
processor, which gives exactly what the original CLIP code gives; the torchvision variant resizes differently.

Dimensions: B images, S height, T width in pixels.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import transformers
from jaxtyping import Float
from torch import Tensor, nn

from llama_adapter.errors import UserError
from llama_adapter.file_formats.model_folder import check_model_files
from llama_adapter.lazy import needed
from llama_adapter.vision.config import VisionConfig
from llama_adapter.vision.tower import ImageTransform, Tower, TowerOutput
from llama_adapter.whole_loads import Misfit, quiet_reports, refuse


@dataclass(frozen=True)
class _Family:
    """One family of encoders."""

    encoder: str
    """Name of the class."""
    prefix_tokens: int
    norm: str = ""
    """Final norm, where ``last_hidden_state`` has not passed it."""
    projected: str = ""
    """Name of the class with a projection."""


_FAMILIES = {
    "clip": _Family("CLIPVisionModel", 1, "post_layernorm", "CLIPVisionModelWithProjection"),
    "siglip": _Family("SiglipVisionModel", 0),
    "dinov2": _Family("Dinov2Model", 1),
    "dinov2_with_registers": _Family("Dinov2WithRegistersModel", 1),
}

_NO_PART_OF_IT = ("_name_or_path", "transformers_version", "torch_dtype", "dtype", "architectures")


class TransformersTower(Tower):
    """One of ``_FAMILIES``."""

    def __init__(self, model: nn.Module, family: _Family, projection: nn.Module | None) -> None:
        super().__init__()
        self.model, self.family, self.projection = model, family, projection
        config: Any = model.config
        self.depth = config.num_hidden_layers
        self.class_token = family.prefix_tokens > 0
        self.prefix_tokens = family.prefix_tokens + getattr(config, "num_register_tokens", 0)
        self.settings = {k: v for k, v in config.to_dict().items() if k not in _NO_PART_OF_IT}

    def forward(self, pixels: Float[Tensor, "B 3 S T"], inner: list[int]) -> TowerOutput:
        """One pass."""
        found = self.model(pixel_values=pixels, output_hidden_states=bool(inner))
        last, pooled = found.last_hidden_state, found.pooler_output
        if self.family.norm:
            last = getattr(self.model, self.family.norm)(last)
        if pooled is None:  # a SigLIP without pooling head
            pooled = last.mean(1)
        if self.projection is not None:
            last, pooled = self.projection(last), self.projection(pooled)
        # the first of them is what enters block 0
        return TowerOutput({index: found.hidden_states[index + 1] for index in inner}, last, pooled)


def load_transformers(config: VisionConfig, empty: bool = False) -> tuple[TransformersTower, ImageTransform]:
    """An encoder of transformers with its preprocessing.

    Args:
        config: which one.
        empty: on the meta device, its weights not read.

    Raises:
        UserError: the model cannot be read, is of another family, or has no projection.
    """
    try:
        settings = transformers.AutoConfig.from_pretrained(config.name_or_path)
        processor = transformers.AutoImageProcessor.from_pretrained(config.name_or_path, backend="pil")
        name = settings.model_type.removesuffix("_vision_model")
        if name not in _FAMILIES:
            raise UserError(
                f"{config.name_or_path!r} is a model of the type {settings.model_type!r}, which is no image "
                f"encoder known here. Use one of {sorted(_FAMILIES)}, or the kind timm or open_clip."
            )
        family = _FAMILIES[name]
        model = _model(config, family, _vision_settings(settings), empty)
    except (OSError, ImportError, RuntimeError) as error:
        raise UserError(
            f"{config.name_or_path!r} cannot be loaded: {' '.join(str(error).split())} "
            "Use a folder with config.json, weights and preprocessor_config.json, or a name on the hub."
        ) from error
    encoder = model.vision_model if config.projection else model
    projection = model.visual_projection if config.projection else None
    return TransformersTower(encoder, family, projection), _transform(processor)


def _vision_settings(settings: Any) -> Any:
    """The settings of the image encoder, out of those of a whole CLIP or alone."""
    vision = getattr(settings, "vision_config", settings)
    if vision is not settings and hasattr(settings, "projection_dim"):
        vision.projection_dim = settings.projection_dim  # the parts' own values are never used by CLIP
    return vision


def _model(config: VisionConfig, family: _Family, settings: Any, empty: bool) -> Any:
    """The encoder, all weights from the checkpoint, or without content.

    Raises:
        UserError: there is no such class, or weights are missing.
    """
    class_name = family.projected if config.projection else family.encoder
    if not class_name:
        raise UserError(
            f"projection=True does not go with {config.name_or_path!r}, which has none. Set it to False."
        )
    if empty:
        with torch.device("meta"):
            return getattr(transformers, class_name)(settings)
    check_model_files(config.name_or_path)
    with quiet_reports():
        model, report = getattr(transformers, class_name).from_pretrained(
            config.name_or_path,
            config=settings,
            dtype=config.dtype,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    misfit = Misfit.of_report(report)
    parts = {name.partition(".")[0] for name in model.state_dict()}
    # what belongs to no part of the encoder is the rest of the checkpoint, such as CLIP's text side
    odd = {name: text for name, text in misfit.unexpected.items() if name.partition(".")[0] in parts}
    hint = "Use a complete checkpoint, or set projection to False." if config.projection else ""
    refuse(replace(misfit, unexpected=odd), (), config.name_or_path, f"the image encoder {class_name}", hint)
    return model


def _transform(processor: Any) -> ImageTransform:
    """The checkpoint's own preprocessing."""
    needed("PIL", "pillow")

    def apply(picture: Any) -> Float[Tensor, "3 S T"]:
        """One picture."""
        pixels: Tensor = processor(images=[picture], return_tensors="pt")["pixel_values"][0]
        return pixels

    settings: Mapping[str, Any] = json.loads(json.dumps(processor.to_dict(), default=str))
    return ImageTransform(apply, {k: v for k, v in settings.items() if k not in _NO_PART_OF_IT})
