"""Settings of ImageBind's towers; the defaults are the published model's.

Unusual: ``modalities`` says which of the towers that a folder describes are built, so that a part of a model
can be loaded. Source: docs/sources/imagebind.md#sizes.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, no_type_check

from transformers import PreTrainedConfig

from llama_adapter.errors import UserError


@dataclass(kw_only=True)
class TowerConfig:
    """What all towers have."""

    hidden_size: int
    """Width of the tokens."""
    num_layers: int
    """Blocks of the transformer."""
    num_heads: int
    """Attention heads."""
    mlp_ratio: int = 4
    """Inner width of a block's MLP, as a multiple of the tokens'."""
    drop_path: float = 0.0
    """Chance that a branch of the last block is skipped in training; it rises from 0 in the first block."""
    layer_norm_eps: float = 1e-6
    """Of the norms of the blocks."""
    qkv_bias: bool = True
    """Whether the projection to queries, keys and values has a bias."""
    extra_key_value: bool = False
    """Whether every attention has one learned key and value more."""
    causal: bool = False
    """Whether a token sees only those before it."""
    pre_norm: bool = False
    """Whether tokens pass a norm before the first block."""
    head_dropout: float = 0.0
    """Chance that a value before the last projection is zero in training."""
    scale: float | None = None
    """Factor of the unit embeddings at the start; None for none at all."""
    learned_scale: bool = False
    """Whether the factor is trained."""

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_heads:
            raise UserError(
                f"hidden_size {self.hidden_size} is no multiple of num_heads {self.num_heads}. "
                "Use a number of heads that divides the width."
            )


@dataclass(kw_only=True)
class PatchTowerConfig(TowerConfig):
    """A tower that cuts its input into patches."""

    channels: int
    """Of the input."""
    height: int = 224
    """Of the input that the position table was made for, in pixels or mel bands."""
    width: int = 224
    """Likewise, in pixels or frames."""
    patch_size: int = 16
    """Height and width of a patch."""
    stride: int = 16
    """Distance of neighbouring patches."""
    frames: int = 0
    """Frames in time that a patch spans; 0 for inputs without time."""
    stem_norm: bool = True
    """Whether patches pass a norm."""

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        rows, columns = ((size - self.patch_size) // self.stride + 1 for size in (self.height, self.width))
        return rows, columns


@dataclass(kw_only=True)
class VisionTowerConfig(PatchTowerConfig):
    """Images, and videos of two frames per clip."""

    hidden_size: int = 1280
    num_layers: int = 32
    num_heads: int = 16
    pre_norm: bool = True
    channels: int = 3
    patch_size: int = 14
    stride: int = 14
    frames: int = 2
    stem_norm: bool = False


@dataclass(kw_only=True)
class AudioTowerConfig(PatchTowerConfig):
    """Log-mel spectrograms of two seconds."""

    hidden_size: int = 768
    num_layers: int = 12
    num_heads: int = 12
    drop_path: float = 0.1
    extra_key_value: bool = True
    scale: float | None = 20.0
    channels: int = 1
    height: int = 128
    width: int = 204
    stride: int = 10


@dataclass(kw_only=True)
class DepthTowerConfig(PatchTowerConfig):
    """Disparity maps."""

    hidden_size: int = 384
    num_layers: int = 12
    num_heads: int = 8
    extra_key_value: bool = True
    scale: float | None = 5.0
    channels: int = 1


@dataclass(kw_only=True)
class ThermalTowerConfig(PatchTowerConfig):
    """Thermal pictures."""

    hidden_size: int = 768
    num_layers: int = 12
    num_heads: int = 12
    extra_key_value: bool = True
    scale: float | None = 10.0
    channels: int = 1


@dataclass(kw_only=True)
class TextTowerConfig(TowerConfig):
    """Token ids of CLIP's tokenizer."""

    hidden_size: int = 1024
    num_layers: int = 24
    num_heads: int = 16
    causal: bool = True
    scale: float | None = 1 / 0.07
    learned_scale: bool = True
    vocab_size: int = 49408
    """Rows of the embedding."""
    length: int = 77
    """Tokens of every text."""


@dataclass(kw_only=True)
class ImuTowerConfig(TowerConfig):
    """Ten seconds of an accelerometer and a gyroscope."""

    hidden_size: int = 512
    num_layers: int = 6
    num_heads: int = 8
    drop_path: float = 0.7
    extra_key_value: bool = True
    head_dropout: float = 0.5
    scale: float | None = 5.0
    channels: int = 6
    """Of the input."""
    length: int = 2000
    """Samples of the input."""
    window: int = 8
    """Samples of a token."""


@dataclass(kw_only=True)
class PointTowerConfig(TowerConfig):
    """Point clouds (Point-BERT's encoder)."""

    hidden_size: int = 384
    num_layers: int = 12
    num_heads: int = 6
    drop_path: float = 0.1
    layer_norm_eps: float = 1e-5
    qkv_bias: bool = False
    head_dropout: float = 0.5
    scale: float | None = 1.0
    groups: int = 512
    """Groups of neighbouring points, one token each."""
    group_size: int = 32
    """Points of a group."""
    group_width: int = 256
    """Width of a group's features."""
    output_width: int = 512
    """Width before the head."""
    random_start: bool = False
    """Whether the first centre is drawn at random in every pass, as the published code does. The default
    takes the point farthest from the centroid, so that a cloud has one embedding."""


TOWER_CONFIGS: dict[str, type[TowerConfig]] = {
    "vision": VisionTowerConfig,
    "text": TextTowerConfig,
    "audio": AudioTowerConfig,
    "depth": DepthTowerConfig,
    "thermal": ThermalTowerConfig,
    "imu": ImuTowerConfig,
    "point": PointTowerConfig,
}
"""Modality -> its settings. The first six are ImageBind's, the last is Point-Bind's."""

IMAGEBIND_MODALITIES = ("vision", "text", "audio", "depth", "thermal", "imu")


@no_type_check  # transformers wraps the __init__ of configs, which the tests' checks at every call do not see
class ImageBindConfig(PreTrainedConfig):
    """Settings of the whole model.

    Raises:
        UserError: an unknown modality or setting, or a tower that is asked for and not described.
    """

    model_type = "imagebind"

    embedding_size: int = 1024
    """Width of the shared space."""
    towers: dict[str, Any] | None = None
    """Modality -> settings of its tower where they are not the published ones; by default ImageBind's six."""
    modalities: list[str] | None = None
    """Which of the towers to build; all by default."""
    initializer_range: float = 0.02
    """Standard deviation of random weights."""

    def __post_init__(self, **kwargs: Any) -> None:
        if self.towers is None:
            self.towers = {name: {} for name in IMAGEBIND_MODALITIES}
        settings = {name: dataclasses.asdict(_tower(name, given)) for name, given in self.towers.items()}
        # a config.json is sorted by letter
        self.towers = {name: settings[name] for name in TOWER_CONFIGS if name in settings}
        super().__post_init__(**kwargs)

    @property
    def active(self) -> dict[str, TowerConfig]:
        """The towers to build, by modality."""
        towers = self.towers or {}
        wanted = list(towers) if self.modalities is None else self.modalities
        for name in wanted:
            if name not in towers:
                raise UserError(
                    f"modalities asks for {name!r}, which this model does not have. "
                    f"Use some of {list(towers)}."
                )
        return {name: _tower(name, towers[name]) for name in wanted}


def _tower(name: str, settings: dict[str, Any]) -> TowerConfig:
    """The settings of one tower."""
    if name not in TOWER_CONFIGS:
        raise UserError(f"Unknown modality {name!r}. Use some of {list(TOWER_CONFIGS)}.")
    kind = TOWER_CONFIGS[name]
    unknown = sorted(settings.keys() - {field.name for field in dataclasses.fields(kind)})
    if unknown:
        raise UserError(
            f"The {name} tower has no settings {unknown}. "
            f"Use some of {[field.name for field in dataclasses.fields(kind)]}."
        )
    return kind(**settings)
