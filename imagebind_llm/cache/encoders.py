"""Encoders of pictures for a cache: ImageBind's image tower, or one of ``llama_adapter.vision``.

Dimensions: B pictures, E width of an embedding; ``...`` shape of a picture's values.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from imagebind_llm.cache.records import EncoderRecord
from imagebind_llm.imagebind.model import ImageBindModel
from imagebind_llm.processing.pictures import load_picture
from imagebind_llm.processing.processor import ImageBindProcessor
from llama_adapter.data.identity import encoder_identity, json_digest
from llama_adapter.errors import UserError
from llama_adapter.vision import VisionConfig, load_encoder


@dataclass(frozen=True)
class PictureEncoder:
    """What turns pictures into embeddings."""

    pixels: Callable[[Any], Float[Tensor, "..."]]
    """From an opened file to one picture's values; raises UserError where it is no picture."""
    encode: Callable[[Float[Tensor, "B ..."]], Float[Tensor, "B E"]]
    """From several pictures' values to embeddings on the CPU."""
    record: EncoderRecord
    """Which one it is."""
    dimension: int
    """E."""


def picture_encoder(
    imagebind: str | None, vision: VisionConfig | None, device: str = "cpu"
) -> PictureEncoder:
    """The encoder that settings name.

    Args:
        imagebind: folder of an ImageBind model.
        vision: another encoder; its global feature is taken.
        device: where it runs.

    Raises:
        UserError: none or both are named, or it cannot be loaded.
    """
    if (imagebind is None) == (vision is None):
        raise UserError(
            f"imagebind is {imagebind!r} and vision is {vision!r}. "
            "Name one of them: the encoder of the pictures."
        )
    return _of_vision(vision, device) if vision else _of_imagebind(str(imagebind), device)


def imagebind_record(model: ImageBindModel, processor: ImageBindProcessor | None = None) -> EncoderRecord:
    """Which ImageBind this is, by its image tower; what ``VisualCache.open`` compares.

    Args:
        model: with the tower of images.
        processor: its processor, for the record of how pictures are prepared.

    Raises:
        UserError: the tower is not there.
    """
    settings = asdict(model.config.active["vision"]) | {"embedding_size": model.config.embedding_size}
    identity = encoder_identity(model.tower("vision"), settings)
    size = processor.config.image_size if processor else 0
    return _record("imagebind", identity, {"image_size": size})


def _of_imagebind(folder: str, device: str) -> PictureEncoder:
    """ImageBind's image tower."""
    model = ImageBindModel.from_pretrained(folder, modalities=["vision"]).eval().to(torch.device(device))
    processor = ImageBindProcessor.from_pretrained(folder)
    weight = next(model.parameters())

    @torch.no_grad()
    def encode(pixels: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B E"]:
        """Embeddings."""
        return model({"vision": pixels.to(weight.device, weight.dtype)}).embeddings["vision"].float().cpu()

    return PictureEncoder(
        lambda file: load_picture(file, processor.config.image_size),
        encode,
        imagebind_record(model, processor),
        model.config.embedding_size,
    )


def _of_vision(config: VisionConfig, device: str) -> PictureEncoder:
    """The global feature of an encoder of the core."""
    encoder = load_encoder(replace(config, output="global")).to(device)
    identity = encoder.identity

    def encode(pixels: Float[Tensor, "B 3 S T"]) -> Float[Tensor, "B E"]:
        """Embeddings."""
        return encoder.select(encoder(pixels))[:, 0].float().cpu()

    return PictureEncoder(
        lambda file: encoder.pixels([file])[0],
        encode,
        _record(f"{config.kind} {config.name_or_path}", dict(identity.encoder), dict(identity.transform)),
        encoder.feature_shape[1],
    )


def _record(name: str, identity: dict[str, Any], transform: dict[str, Any]) -> EncoderRecord:
    """Hashes of all that decides embeddings."""
    return EncoderRecord(
        name=name,
        weights=identity["weights"],
        space=json_digest(identity),
        transform=json_digest(transform),
    )
