"""From embeddings to pictures by an unCLIP pipeline of diffusers, as ImageBind-LLM's image generation does.

unCLIP models draw from embeddings of CLIP's image encoder, which is ImageBind's image tower before its last
normalisation. So the arithmetic differs from that of ``mixing``: vectors keep their lengths, points are
divided by five, and behind a visual cache the length is restored.
Source: docs/sources/llama-adapter.md#arithmetic, 14.

Unusual: nothing here needs diffusers but ``load_pipeline``; any object that is called like diffusers'
``StableUnCLIPImg2ImgPipeline`` draws.

Dimensions: R records, E width of the space.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from imagebind_llm.mixing import weighted_mean
from llama_adapter.errors import UserError
from llama_adapter.lazy import needed
from llama_adapter.multimodal.sight import Blend

POINT_SCALE = 5.0
"""Points' vectors are longer than images' by this factor."""

_LEVELS = 1000
"""Steps of the noise schedule of all published unCLIP models."""


@dataclass(kw_only=True)
class DrawingConfig:
    """How an unCLIP model draws. The defaults are those of diffusers, which the original used."""

    prompt: str = ""
    """A text beside the embedding."""
    negative_prompt: str | None = None
    """A text to keep away from."""
    guidance_scale: float = 10.0
    """How closely the picture follows embedding and text; 1 and below switch the guidance off."""
    noise_level: int = 0
    """Noise on the embedding, from 0 to 999: more of it, more variety."""
    steps: int = 20
    """Steps of denoising."""
    pictures: int = 1
    """Pictures per record."""
    size: int | None = None
    """Height and width in pixels; by default the model's own."""
    seed: int | None = None
    """Makes drawing repeatable."""

    def __post_init__(self) -> None:
        if not 0 <= self.noise_level < _LEVELS:
            raise UserError(f"noise_level is {self.noise_level}. Use 0 to {_LEVELS - 1}.")
        for name in ("steps", "pictures"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}. Use 1 or more.")
        if self.size is not None and (self.size < 8 or self.size % 8):
            raise UserError(f"size is {self.size}. Use a multiple of 8.")


def drawing_vectors(
    features: Sequence[tuple[str, Float[Tensor, "R E"]]],
    weights: Sequence[float],
    blend: Blend | None = None,
) -> Float[Tensor, "R E"]:
    """The vectors to draw from.

    Args:
        features: one entry per input: its modality, and ``ImageBindOutput.features`` of it.
        weights: one per input; divided by their sum.
        blend: a visual cache's, asked with unit vectors.

    Raises:
        UserError: there is no input, a weight is missing, or weights cancel each other.
    """
    scaled = [values / POINT_SCALE if name == "point" else values for name, values in features]
    vectors = weighted_mean(scaled, weights)
    if blend is None:
        return vectors
    length = vectors.norm(dim=-1, keepdim=True)
    return blend(vectors / length) * length


def draw(pipeline: Any, vectors: Float[Tensor, "R E"], config: DrawingConfig | None = None) -> list[Any]:
    """Pictures of vectors.

    Args:
        pipeline: see ``load_pipeline``.
        vectors: see ``drawing_vectors``.
        config: how.

    Returns:
        Pictures of Pillow, ``config.pictures`` per record, record by record.

    Raises:
        UserError: the vectors are not of the pipeline's width.
    """
    config = config or DrawingConfig()
    width = pipeline.image_normalizer.mean.shape[-1]
    if vectors.shape[-1] != width:
        raise UserError(
            f"The vectors have {vectors.shape[-1]} values, but the unCLIP model draws from {width}. "
            "Use one of the same width, for ImageBind's 1024 stabilityai/stable-diffusion-2-1-unclip."
        )
    generator = None if config.seed is None else torch.Generator("cpu").manual_seed(config.seed)
    return list(
        pipeline(
            prompt=[config.prompt] * len(vectors),
            image_embeds=vectors.to(pipeline.device, pipeline.dtype),
            generator=generator,
            **_options(config, len(vectors)),
        ).images
    )


def _options(config: DrawingConfig, records: int) -> Mapping[str, Any]:
    """What diffusers calls the settings."""
    negative = config.negative_prompt
    return {
        "negative_prompt": None if negative is None else [negative] * records,
        "guidance_scale": config.guidance_scale,
        "noise_level": config.noise_level,
        "num_inference_steps": config.steps,
        "num_images_per_prompt": config.pictures,
        "height": config.size,
        "width": config.size,
    }


def load_pipeline(name: str, device: torch.device) -> Any:
    """An unCLIP model of diffusers.

    Args:
        name: folder, or name on the hub.
        device: where it runs; on a GPU in float16.

    Raises:
        UserError: diffusers is not installed, or there is no such model.
    """
    diffusers = needed("diffusers", "diffusers", "Pictures drawn from embeddings", "generation")
    try:
        loaded = diffusers.StableUnCLIPImg2ImgPipeline.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise UserError(
            f"The unCLIP model {name!r} cannot be loaded: {' '.join(str(error).split())[:300]} "
            "Use the folder or hub name of a StableUnCLIPImg2ImgPipeline."
        ) from error
    return loaded.to(device, torch.float16 if device.type == "cuda" else torch.float32)
