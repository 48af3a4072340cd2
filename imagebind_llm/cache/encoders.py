"""Encoders of pictures for a cache: those of ``llama_adapter.vision``, ImageBind's image tower among them.

Dimensions: B pictures, E width of an embedding, S height, T width in pixels.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from imagebind_llm.cache.records import EncoderRecord
from llama_adapter.data.identity import json_digest
from llama_adapter.errors import UserError
from llama_adapter.vision import VisionConfig, VisionEncoder, load_encoder


@dataclass(frozen=True)
class PictureEncoder:
    """What turns pictures into embeddings."""

    encoder: VisionEncoder
    """With one global feature per picture."""
    record: EncoderRecord
    """Which one it is."""

    @property
    def dimension(self) -> int:
        """E."""
        return self.encoder.feature_shape[1]

    def pixels(self, file: Any) -> Float[Tensor, "3 S T"]:
        """One picture's values.

        Args:
            file: its path, or the file opened.

        Raises:
            UserError: it is no picture.
        """
        return self.encoder.pixels([file])[0]

    def encode(self, pixels: Float[Tensor, "B 3 S T"]) -> Float[Tensor, "B E"]:
        """Embeddings of pictures, on the CPU."""
        return self.encoder.select(self.encoder(pixels))[:, 0].float().cpu()


def encoder_config(imagebind: str | None, vision: VisionConfig | None) -> VisionConfig:
    """The encoder that settings name.

    Args:
        imagebind: folder of an ImageBind model, for short.
        vision: any encoder.

    Raises:
        UserError: none or both are named.
    """
    if (imagebind is None) == (vision is None):
        raise UserError(
            f"imagebind is {imagebind!r} and vision is {vision!r}. "
            "Name one of them: the encoder of the pictures."
        )
    return vision or VisionConfig(kind="imagebind", name_or_path=str(imagebind))


def picture_encoder(config: VisionConfig, device: str = "cpu") -> PictureEncoder:
    """An encoder with its record; of the encoder's outputs the global feature is taken.

    Args:
        config: which one.
        device: where it runs.

    Raises:
        UserError: it cannot be loaded.
    """
    encoder = load_encoder(replace(config, output="global"))
    record = _record(encoder)
    return PictureEncoder(encoder.to(torch.device(device)), record)


def encoder_record(config: VisionConfig) -> EncoderRecord:
    """Which encoder a config names, for ``VisualCache.open``; whatever precision it runs in.

    Raises:
        UserError: it cannot be loaded.
    """
    return picture_encoder(replace(config, dtype="float32")).record


def _record(encoder: VisionEncoder) -> EncoderRecord:
    """Hashes of all that decides embeddings."""
    config, identity = encoder.config, encoder.identity
    return EncoderRecord(
        name=f"{config.kind} {config.name_or_path}",
        weights=identity.encoder["weights"],
        space=json_digest(dict(identity.encoder)),
        transform=json_digest(dict(identity.transform)),
    )
