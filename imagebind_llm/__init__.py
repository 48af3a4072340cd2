"""ImageBind as a library: six modalities and point clouds in one embedding space, and what is built on it.

Importing this package loads no torch; its names load their modules when they are used.
"""

from llama_adapter.lazy import lazy_attributes

__all__ = [
    "BindConfig",
    "BindNetwork",
    "CacheConfig",
    "Clips",
    "ImageBindConfig",
    "ImageBindLlm",
    "ImageBindLlmProcessor",
    "ImageBindModel",
    "ImageBindOutput",
    "ImageBindProcessor",
    "ProcessorConfig",
    "VisualCache",
    "encoder_record",
    "mix",
    "retrieve",
    "similarities",
]

__getattr__ = lazy_attributes(
    __name__,
    {
        "BindConfig": "imagebind_llm.bind",
        "BindNetwork": "imagebind_llm.bind",
        "CacheConfig": "imagebind_llm.cache.visual_cache",
        "Clips": "imagebind_llm.clips",
        "ImageBindConfig": "imagebind_llm.imagebind.config",
        "ImageBindLlm": "imagebind_llm.model",
        "ImageBindLlmProcessor": "imagebind_llm.llm_processor",
        "ImageBindModel": "imagebind_llm.imagebind.model",
        "ImageBindOutput": "imagebind_llm.imagebind.model",
        "ImageBindProcessor": "imagebind_llm.processing.processor",
        "ProcessorConfig": "imagebind_llm.processing.config",
        "VisualCache": "imagebind_llm.cache.visual_cache",
        "encoder_record": "imagebind_llm.cache.encoders",
        "mix": "imagebind_llm.mixing",
        "retrieve": "imagebind_llm.retrieval",
        "similarities": "imagebind_llm.retrieval",
    },
)
