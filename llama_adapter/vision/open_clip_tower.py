"""Image encoders of open_clip: its own vision transformers, and those that it takes from timm.

OpenAI's weights need the models that end in ``-quickgelu`` when they come from a file.

Dimensions: B images, S height, T width in pixels.
"""

import json
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from llama_adapter.errors import UserError
from llama_adapter.lazy import needed
from llama_adapter.vision.config import VisionConfig
from llama_adapter.vision.timm_tower import TimmTower
from llama_adapter.vision.tower import ImageTransform, Tower, TowerOutput, describe


class OpenClipTower(Tower):
    """open_clip's own vision transformer, pooled by its class token."""

    def __init__(self, model: nn.Module, projection: bool) -> None:
        super().__init__()
        self.model, self.projection = model, projection
        transformer: Any = model.transformer
        self.depth = len(transformer.resblocks)
        self.class_token, self.prefix_tokens = True, 1
        self.settings = {**describe(model), "projection": projection}

    def forward(self, pixels: Float[Tensor, "B 3 S T"], inner: list[int]) -> TowerOutput:
        """One pass."""
        model: Any = self.model
        wanted = [*inner, self.depth - 1]
        found = model.forward_intermediates(
            pixels, indices=wanted, intermediates_only=True, output_fmt="NLC", output_extra_tokens=True
        )
        places, prefixes = found["image_intermediates"], found["image_intermediates_prefix"]
        levels = [torch.cat(pair, dim=1) for pair in zip(prefixes, places, strict=True)]
        last = model.ln_post(levels[-1])
        if self.projection:
            last = last @ model.proj
        return TowerOutput(dict(zip(inner, levels, strict=False)), last, last[:, 0])


def load_open_clip(config: VisionConfig) -> tuple[Tower, ImageTransform]:
    """The image encoder of an open_clip model with its preprocessing.

    Raises:
        UserError: the model or its weights cannot be read, or its encoder does not do what was asked for.
    """
    open_clip = needed("open_clip", "open_clip_torch")
    transforms = needed("open_clip.transform", "open_clip_torch")
    try:
        visual = open_clip.create_model(config.name_or_path, pretrained=config.weights).visual
    except (OSError, RuntimeError, LookupError, ValueError) as error:
        raise UserError(
            f"{config.name_or_path!r} with the weights {config.weights!r} cannot be loaded: {error}. "
            "Use one of open_clip.list_pretrained(), or a file of weights of that model."
        ) from error
    settings = visual.preprocess_cfg
    apply = transforms.image_transform_v2(transforms.PreprocessCfg(**settings), is_train=False)
    return _tower(config, visual), ImageTransform(apply, json.loads(json.dumps(settings, default=str)))


def _tower(config: VisionConfig, visual: nn.Module) -> Tower:
    """The encoder alone.

    Raises:
        UserError: it is of a sort that is not known here, or has no projection of single tokens.
    """
    name = type(visual).__name__
    if name == "TimmModel" and not config.projection:
        return TimmTower(getattr(visual, "trunk"))  # noqa: B009 - mypy: nn.Module's attributes are tensors
    own = name == "VisionTransformer"
    if own and getattr(visual, "attn_pool", None) is None and getattr(visual, "pool_type", "") == "tok":
        return OpenClipTower(visual, config.projection)
    raise UserError(
        f"The image encoder of {config.name_or_path!r} is a {name}, whose tokens cannot be taken "
        f"with projection={config.projection}. Use projection=False, or a model with a class token."
    )
