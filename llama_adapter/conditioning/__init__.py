"""From the features of an image, or anything else, to what is added to the prompts."""

from llama_adapter.conditioning.base import (
    Conditioner,
    ConditionerConfig,
    make_conditioner,
    register_conditioner,
)
from llama_adapter.conditioning.files import load_conditioner, save_conditioner
from llama_adapter.conditioning.global_features import GlobalFeatures, GlobalFeaturesConfig
from llama_adapter.conditioning.visual_queries import VisualQueries, VisualQueriesConfig

__all__ = [
    "Conditioner",
    "ConditionerConfig",
    "GlobalFeatures",
    "GlobalFeaturesConfig",
    "VisualQueries",
    "VisualQueriesConfig",
    "load_conditioner",
    "make_conditioner",
    "register_conditioner",
    "save_conditioner",
]
