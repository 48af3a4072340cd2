"""A visual cache for a model that answers: opened by its path, checked against the model's encoder."""

from pathlib import Path

from imagebind_llm.cache.encoders import picture_encoder
from imagebind_llm.cache.visual_cache import VisualCache
from llama_adapter.multimodal.sight import Blend
from llama_adapter.vision import VisionConfig


def open_blend(path: str | Path, vision: VisionConfig) -> Blend:
    """What a cache does to embeddings (B, E) of an encoder.

    Args:
        path: a folder of ``cache build``, or an index file.
        vision: the encoder's settings; its weights are read to compare them with those of the cache.

    Raises:
        UserError: it is not complete, or was built with another encoder.
    """
    by_imagebind = vision.kind == "imagebind"
    encoder = picture_encoder(vision.name_or_path if by_imagebind else None, None if by_imagebind else vision)
    return VisualCache.open(path, encoder=encoder.record).blend
