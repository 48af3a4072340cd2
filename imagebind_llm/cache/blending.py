"""A visual cache as the function that ``generate --visual-cache`` puts before a trained model.

Dimensions: B records, E width of an embedding.
"""

from pathlib import Path

from imagebind_llm.cache.encoders import encoder_record
from imagebind_llm.cache.visual_cache import CacheConfig, VisualCache
from llama_adapter.errors import UserError
from llama_adapter.multimodal.sight import Blend
from llama_adapter.vision import VisionConfig


def open_blend(path: str | Path, encoder: VisionConfig | None, config: CacheConfig | None = None) -> Blend:
    """``VisualCache.blend`` of a cache that belongs to a model's encoder.

    Args:
        path: a folder of ``cache build``, or an index file.
        encoder: the model's.
        config: how the cache is asked.

    Raises:
        UserError: the cache cannot be read, or was built with another encoder; or the model names none.
    """
    if encoder is None:
        raise UserError(
            f"The visual cache {str(path)!r} needs a model that names its image encoder, and this one "
            "names none. Leave visual_cache out, or train with vision.kind and vision.name_or_path."
        )
    record = None if Path(path).is_file() else encoder_record(encoder)  # a file does not say whose it is
    return VisualCache.open(path, config, record).blend
