"""Frozen image encoders: pixels, or files, to token features of chosen layers.

An encoder never trains: ``train()`` leaves it in evaluation mode, its weights need no gradient, and no pass
records one. ``features`` keeps what it computes on disk, under everything that decides it.

Dimensions: B images, N tokens, C width of all levels together, S height, T width in pixels.
"""

import importlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from llama_adapter.conditioning.base import join_levels
from llama_adapter.data.feature_cache import FeatureCache, FeatureIdentity, FeatureTable
from llama_adapter.data.identity import encoder_identity
from llama_adapter.data.images import read_image
from llama_adapter.errors import UserError
from llama_adapter.lazy import needed
from llama_adapter.vision.config import VisionConfig
from llama_adapter.vision.tower import ImageTransform, Tower
from llama_adapter.whole_loads import Misfit, not_finite, refuse

_log = logging.getLogger(__name__)

_LOADERS = {
    "transformers": "llama_adapter.vision.transformers_tower:load_transformers",
    "open_clip": "llama_adapter.vision.open_clip_tower:load_open_clip",
    "timm": "llama_adapter.vision.timm_tower:load_timm",
    "imagebind": "imagebind_llm.vision_tower:load_imagebind",
}
"""Kind -> `module:function` that makes tower and preprocessing. The function takes the settings; where
``VisionConfig.brings_weights``, also whether the tower is to be empty."""
_WITH_WEIGHTS = ("local-dir:", "hf-hub:")
"""Beginnings of open_clip's names that bring weights along."""


@dataclass(frozen=True, eq=False)
class EncoderOutput:
    """Features of images, level by level, in the order of ``VisionConfig.levels``."""

    tokens: tuple[Float[Tensor, "B _ _"], ...]
    """All tokens; a class token stands first."""
    pooled: tuple[Float[Tensor, "B _"], ...]
    """Global features: the encoder's own behind the last block, else the class token or the tokens' mean."""


class VisionEncoder(nn.Module):
    """A tower with its preprocessing. Made by ``load_encoder``."""

    def __init__(self, tower: Tower, transform: ImageTransform, config: VisionConfig) -> None:
        super().__init__()
        self.tower, self.transform, self.config = tower, transform, config
        self.levels = _positive(config.levels, tower.depth)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "VisionEncoder":
        """Stays in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, pixels: Float[Tensor, "B 3 S T"]) -> EncoderOutput:
        """Features of preprocessed images; any floating type on any device."""
        tower, last = self.tower, self.tower.depth - 1
        weight = next(tower.parameters())
        inner = sorted({level for level in self.levels if level != last})
        found = tower(pixels.to(weight.device, weight.dtype), inner)
        tokens = {**found.inner, last: found.last}
        pooled = {level: tower.global_feature(level_tokens) for level, level_tokens in found.inner.items()}
        pooled[last] = found.pooled
        return EncoderOutput(
            tuple(tokens[level] for level in self.levels), tuple(pooled[level] for level in self.levels)
        )

    def pixels(self, paths: Sequence[Any]) -> Float[Tensor, "B 3 S T"]:
        """Images from files, or pictures of Pillow, preprocessed.

        Raises:
            UserError: a file is no image.
        """
        pictures = (read_image(path, self.config.channels) for path in paths)
        return torch.stack([self.transform.apply(picture) for picture in pictures])

    def select(self, output: EncoderOutput) -> Float[Tensor, "B N C"]:
        """What ``config.output`` names, all levels side by side: what a conditioner takes.

        Raises:
            UserError: the levels differ in their number of tokens.
        """
        if self.config.output == "tokens":
            return join_levels(output.tokens)
        return torch.cat(output.pooled, dim=-1)[:, None]

    def encode(self, paths: Sequence[Any]) -> Float[Tensor, "B N C"]:
        """Features of image files, or pictures of Pillow, as one batch."""
        return self.select(self(self.pixels(paths)))

    @property
    def identity(self) -> FeatureIdentity:
        """Everything besides an image that decides its features; hashes all weights."""
        config = self.config
        taken = {"levels": self.levels, "output": config.output, "projection": config.projection}
        encoder = encoder_identity(self.tower, self.tower.settings)
        transform = {**self.transform.settings, "channels": config.channels}
        return FeatureIdentity(encoder={**encoder, **taken}, transform=transform, dtype=config.stored_dtype)

    def features(
        self, paths: Sequence[str], cache: str | Path, batch_size: int = 32, progress: bool = True
    ) -> FeatureTable:
        """Features by path, for ``FeatureCollator``; computed where the cache does not have them.

        Args:
            paths: image files; the same one may occur several times.
            cache: folder of the cache, shared by all encoders.
            batch_size: images of one pass.
            progress: show a bar.

        Raises:
            UserError: a file is no image, or the disk is too small.
        """
        return FeatureCache(cache, self.identity).table(paths, self.encode, batch_size, progress)

    @cached_property
    def feature_shape(self) -> tuple[int, int]:
        """Tokens N and width C of one image's features."""
        tokens, width = self.select(self(self._blank()[None])).shape[1:]
        return tokens, width

    @property
    def image_size(self) -> tuple[int, int]:
        """Height S and width T of a preprocessed square image, in pixels."""
        height, width = self._blank().shape[1:]
        return height, width

    def _blank(self) -> Float[Tensor, "3 S T"]:
        """A black square, preprocessed."""
        return self.transform.apply(needed("PIL.Image", "pillow").new("RGB", (64, 64)))


def load_encoder(config: VisionConfig) -> VisionEncoder:
    """The encoder that a config names, on the CPU; ``.to(device)`` moves it.

    Raises:
        UserError: it cannot be loaded, or has not what is asked for.
    """
    if _is_random(config):
        _log.warning("%r has random weights. Set weights to use trained ones.", config.name_or_path)
    tower, transform = _loader(config.kind)(config)
    file = config.name_or_path if config.weights in (None, "hub") else str(config.weights)
    refuse(Misfit(not_finite=not_finite(tower.state_dict())), (), file, "an image encoder")
    return VisionEncoder(tower.to(getattr(torch, config.dtype)), transform, config)


def empty_encoder(config: VisionConfig) -> VisionEncoder:
    """The encoder that a config names without the content of its weights, on the meta device.

    Raises:
        UserError: its settings cannot be read, or it has not what is asked for.
    """
    if config.brings_weights:
        tower, transform = _loader(config.kind)(config, empty=True)
        return VisionEncoder(tower.to(getattr(torch, config.dtype)), transform, config)
    local = config.name_or_path.startswith(_WITH_WEIGHTS)
    bare, transform = _loader(config.kind)(config if local else replace(config, weights=None))
    return VisionEncoder(bare.to("meta", getattr(torch, config.dtype)), transform, config)


def _loader(kind: str) -> Callable[..., tuple[Tower, ImageTransform]]:
    """What makes the towers of a kind."""
    module, _, function = _LOADERS[kind].partition(":")
    return cast(
        "Callable[..., tuple[Tower, ImageTransform]]", getattr(importlib.import_module(module), function)
    )


def _is_random(config: VisionConfig) -> bool:
    """Whether nothing says where weights come from."""
    if config.weights is not None or config.brings_weights:
        return False
    return config.kind == "timm" or not config.name_or_path.startswith(_WITH_WEIGHTS)


def _positive(levels: Sequence[int], depth: int) -> list[int]:
    """Numbers of levels from 0."""
    if wrong := [level for level in levels if not -depth <= level < depth]:
        raise UserError(
            f"levels of the image encoder names {wrong[0]}, but it has {depth}. "
            f"Use numbers from {-depth} to {depth - 1}."
        )
    return [level % depth for level in levels]
