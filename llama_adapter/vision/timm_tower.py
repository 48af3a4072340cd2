"""Image encoders of timm: transformers and convolutional networks.

The last level is what the model passes to its head. Inner levels are those of timm's
``forward_intermediates``: blocks of a transformer, stages of a convolutional network. Models without it have
the last level only.

Dimensions: B images, S height, T width in pixels.
"""

import json
from inspect import signature
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from llama_adapter.errors import UserError
from llama_adapter.lazy import needed
from llama_adapter.vision.config import VisionConfig
from llama_adapter.vision.tower import ImageTransform, Tower, TowerOutput, as_tokens, describe, with_prefix


class TimmTower(Tower):
    """Any model of timm."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        levels = hasattr(model, "forward_intermediates")
        self.depth = len(getattr(model, "feature_info", [])) if levels else 1
        self.prefix_tokens = int(getattr(model, "num_prefix_tokens", 0))
        self.class_token = bool(getattr(model, "has_class_token", self.prefix_tokens > 0))
        self.settings = describe(model)

    def forward(self, pixels: Float[Tensor, "B 3 S T"], inner: list[int]) -> TowerOutput:
        """One pass."""
        model: Any = self.model
        levels: list[Any] = []
        if inner:
            prefix = "return_prefix_tokens" in signature(model.forward_intermediates).parameters
            options = {"return_prefix_tokens": True} if prefix else {}
            features, levels = model.forward_intermediates(pixels, indices=inner, **options)
        else:
            features = model.forward_features(pixels)
        last = as_tokens(features, channels_last=getattr(model, "output_fmt", "NCHW") == "NHWC")
        pooled = model.forward_head(features, pre_logits=True).flatten(1)
        return TowerOutput(dict(zip(inner, map(with_prefix, levels), strict=True)), last, pooled)


def load_timm(config: VisionConfig) -> tuple[TimmTower, ImageTransform]:
    """A model of timm with its preprocessing.

    Raises:
        UserError: the model or its weights cannot be read, or a projection was asked for.
    """
    if config.projection:
        raise UserError("projection=True does not go with the kind 'timm'. Use open_clip or transformers.")
    timm, data = needed("timm", "timm"), needed("timm.data", "timm")
    file = None if config.weights in (None, "hub") else config.weights
    try:
        model = timm.create_model(
            config.name_or_path, pretrained=config.weights == "hub", checkpoint_path=file
        )
    except (OSError, RuntimeError, LookupError, ValueError) as error:
        raise UserError(
            f"{config.name_or_path!r} with the weights {config.weights!r} cannot be loaded: {error}. "
            "Use a name of timm.list_models() and weights of that model."
        ) from error
    return TimmTower(model), timm_transform(data, model)


def timm_transform(data: Any, model: nn.Module) -> ImageTransform:
    """The preprocessing that a model's configuration asks for; ``data`` is timm's module of that name."""
    settings = data.resolve_model_data_config(model)
    apply = data.create_transform(**settings, is_training=False)
    return ImageTransform(apply, json.loads(json.dumps(settings, default=str)))
