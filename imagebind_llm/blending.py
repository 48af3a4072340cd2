"""Opens a visual cache for the encoder of an adapter, as `generate --visual-cache` asks for it.

A cache draws embeddings towards those of pictures, so it must have been built with the encoder whose
embeddings ask: that is compared. Files of an index alone do not say what built them.
"""

from pathlib import Path

from imagebind_llm.cache.encoders import picture_encoder
from imagebind_llm.cache.visual_cache import VisualCache
from llama_adapter.vision import VisionConfig


def open_cache(path: str | Path, encoder: VisionConfig | None) -> VisualCache:
    """The cache; its ``blend`` changes embeddings.

    Args:
        path: a folder of `cache build`, or an index file.
        encoder: of the adapter; None is not compared.

    Raises:
        UserError: there is no cache, it was built with another encoder, or a package is missing.
    """
    if encoder is None or Path(path).is_file():
        return VisualCache.open(path)
    own = encoder.kind == "imagebind"
    asking = picture_encoder(encoder.name_or_path if own else None, None if own else encoder)
    return VisualCache.open(path, encoder=asking.record)
