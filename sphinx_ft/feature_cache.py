"""Features of frozen encoders, kept on disk picture by picture: what training reads in place of pixels.

The channels of all grid encoders are one stored tensor per picture, the tokens of each query encoder another.
Only views that are encoded are stored. A key is a picture's content, and a folder is named by everything else
that decides its features: encoders with their weights, padding, grid, and whether views are skipped.

Dimensions: P encoded views, G places of the common grid and one summary, Q queries, C width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from llama_adapter.data.feature_cache import FeatureCache, FeatureIdentity, FeatureTable
from llama_adapter.data.identity import encoder_identity
from llama_adapter.errors import UserError
from sphinx_ft.config import SphinxConfig
from sphinx_ft.encoders.base import EncoderConfig
from sphinx_ft.mixing import EncoderMix, MixedFeatures
from sphinx_ft.pictures import load_squares
from sphinx_ft.views import Size

MIXED = "mixed"
"""Names the stored channels of all grid encoders; query encoders go by their own names."""


class CachedFeatures:
    """Features of pictures by their paths."""

    def __init__(
        self, tables: Mapping[str, FeatureTable], config: SphinxConfig, sizes: Mapping[str, Size]
    ) -> None:
        self.tables, self.config, self.sizes = tables, config, sizes

    def of(self, paths: Sequence[str]) -> MixedFeatures:
        """Features of pictures, one after another; at least one."""
        places = 1 + self.config.token_config.grid**2
        parts = {
            name: torch.cat([table[path] for path in paths]).unflatten(0, (-1, self._tokens(name, places)))
            for name, table in self.tables.items()
        }
        return MixedFeatures(parts.pop(MIXED, None), parts)

    def _tokens(self, name: str, places: int) -> int:
        """Stored rows of one view."""
        if name == MIXED:
            return places
        return next(one.queries for one in self.config.encoder_configs if one.name == name)


def cache_features(
    mix: EncoderMix,
    config: SphinxConfig,
    sizes: Mapping[str, Size],
    folder: str | Path,
    device: torch.device,
    dtype: Literal["float32", "float16", "bfloat16"] = "float16",
    progress: bool = True,
) -> CachedFeatures:
    """Compute the features of pictures that the cache does not have.

    Args:
        mix: the encoders.
        config: of the model.
        sizes: width and height of image files.
        folder: of the cache, shared by all encoders.
        device: runs the encoders, and is where those are that are part of the model.
        dtype: how features are kept.
        progress: show a bar.

    Raises:
        UserError: a file is no image, an encoder is not frozen or has dropout, or the disk is too small.
    """
    groups: dict[str, list[EncoderConfig]] = {}
    for one in mix.configs:
        groups.setdefault(one.name if one.queries else MIXED, []).append(one)
    tables = {}
    for name, members in groups.items():
        encoders = {one.name: mix.encoder(one, device) for one in members}
        cache = FeatureCache(folder, _identity(encoders, config, members, dtype))
        compute = partial(_compute, mix, config, name, device)
        tables[name] = cache.table(list(sizes), compute, batch_size=8, progress=progress)
    return CachedFeatures(tables, config, sizes)


def _identity(
    encoders: Mapping[str, nn.Module], config: SphinxConfig, members: Sequence[EncoderConfig], dtype: Any
) -> FeatureIdentity:
    """Everything besides a picture that decides what is stored."""
    identities = {}
    for one in members:
        encoder = encoders[one.name]
        if one.dropout or any(weight.requires_grad for weight in encoder.parameters()):
            raise UserError(
                f"The encoder {one.name!r} has dropout={one.dropout}, or trains, so its features change. "
                "Set data.images=live."
            )
        settings = {name: value for name, value in asdict(one).items() if name != "weights"}
        identities[one.name] = encoder_identity(encoder, settings)
    skips = config.token_config.skip != "never"
    return FeatureIdentity(
        encoder=identities,
        transform={**config.views, "common_grid": config.token_config.grid, "skips": skips},
        dtype=dtype,
    )


def _compute(
    mix: EncoderMix, config: SphinxConfig, name: str, device: torch.device, paths: list[str]
) -> list[Float[Tensor, "_ C"]]:
    """What is stored of pictures: rows of all their encoded views."""
    squares, useful = load_squares(paths, config.view_config)
    encoded = config.layout.encoded(useful)
    squares = squares.to(device)
    found: Any = mix.mixed(squares, encoded) if name == MIXED else mix.queries(squares, encoded, {name})[name]
    return [views.flatten(0, 1) for views in found.split(encoded.sum(dim=1).tolist())]
