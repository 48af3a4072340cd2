"""Frozen image encoders: from files to features."""

from llama_adapter.data.images import read_image
from llama_adapter.vision.config import VisionConfig
from llama_adapter.vision.encoder import EncoderOutput, VisionEncoder, empty_encoder, load_encoder

__all__ = [
    "EncoderOutput",
    "VisionConfig",
    "VisionEncoder",
    "empty_encoder",
    "load_encoder",
    "read_image",
]
