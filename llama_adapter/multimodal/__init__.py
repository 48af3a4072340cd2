"""A language model that sees, as transformers knows models: config, model, processor, Auto classes.

Unusual: importing this package loads nothing, so that transformers can be told of it without loading torch.
"""

from typing import TYPE_CHECKING

from llama_adapter.lazy import lazy_attributes

if TYPE_CHECKING:
    from llama_adapter.multimodal.config import ImageConditionedConfig
    from llama_adapter.multimodal.model import ImageConditionedModel, save_encoder_settings
    from llama_adapter.multimodal.processor import ImageConditionedProcessor
    from llama_adapter.multimodal.sight import Sight

__all__ = [
    "ImageConditionedConfig",
    "ImageConditionedModel",
    "ImageConditionedProcessor",
    "Sight",
    "save_encoder_settings",
]

__getattr__ = lazy_attributes(
    __name__,
    {
        "ImageConditionedConfig": "llama_adapter.multimodal.config",
        "ImageConditionedModel": "llama_adapter.multimodal.model",
        "ImageConditionedProcessor": "llama_adapter.multimodal.processor",
        "Sight": "llama_adapter.multimodal.sight",
        "save_encoder_settings": "llama_adapter.multimodal.model",
    },
)
