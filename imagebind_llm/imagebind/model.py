"""``ImageBindModel``: one embedding space for images, videos, texts, sounds, depth, heat, motion and points.

Unusual: it takes one mapping, modality -> values, as a model of any subset of towers does; and records of one
modality may have different numbers of clips (``Clips``), whose embeddings are averaged without being
normalised again. A tower that is not built takes no memory, and its weights are not read.

Dimensions: R records, E width of the shared space; ``...`` shape of one input.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init

from imagebind_llm.clips import Clips
from imagebind_llm.imagebind.config import ImageBindConfig
from imagebind_llm.imagebind.towers import Tower, make_tower
from llama_adapter.errors import UserError
from llama_adapter.whole_loads import load_whole

Values: TypeAlias = Shaped[Tensor, "R ..."] | Clips | Sequence[Float[Tensor, "_ 3"]]
"""Inputs of one modality: a tensor, with an axis of clips or without; records of unequal clips; point clouds
of unequal sizes."""

_TOKENS = ("class_token", "class_position", "position", "extra_key", "extra_value")
_IMAGE_DIMENSIONS, _CLIP_DIMENSIONS = 4, 6
_SINGLE = {"text": 2, "audio": 4, "depth": 4, "thermal": 4, "imu": 3, "point": 3}
"""Dimensions of inputs without an axis of clips."""


@dataclass(kw_only=True)
class ImageBindOutput:
    """What the model makes of its inputs, by modality."""

    embeddings: dict[str, Float[Tensor, "R E"]] = field(default_factory=dict)
    """Unit vectors times the modality's scale, averaged over clips."""
    features: dict[str, Float[Tensor, "R E"]] = field(default_factory=dict)
    """The vectors before normalisation, averaged over clips; what ImageBind-LLM's bind network takes."""


class ImageBindModel(PreTrainedModel):
    """ImageBind, or some of its towers."""

    config_class = ImageBindConfig
    base_model_prefix = "imagebind"
    main_input_name = "inputs"
    input_modalities = ["image", "video", "text", "audio"]
    _no_split_modules = ["Block"]

    def __init__(self, config: ImageBindConfig) -> None:
        super().__init__(config)
        active = config.active
        self.towers = nn.ModuleDict(
            {name: make_tower(tower, config.embedding_size) for name, tower in active.items()}
        )
        # the weights of towers that were left out on purpose are no surprise
        left_out = [name for name in config.towers or {} if name not in active]
        self._keys_to_ignore_on_load_unexpected = {rf"^towers\.{name}\." for name in left_out}
        self.post_init()

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, pretrained_model_name_or_path: str | Path, *args: Any, **kwargs: Any
    ) -> "ImageBindModel":
        """A model from a folder; see transformers.

        Args:
            pretrained_model_name_or_path: as ``save_pretrained`` or ``convert`` wrote it.
            args: see transformers.
            kwargs: see transformers; ``modalities=["vision", "text"]`` reads these towers alone,
                ``allow_misfit`` names tensors that need not fit, see ``llama_adapter.whole_loads``.

        Raises:
            UserError: the folder lacks a tower, or weights of one.
        """
        with_report = kwargs.pop("output_loading_info", False)
        load: Any = super().from_pretrained
        loaded: Any = load_whole(load, pretrained_model_name_or_path, *args, **kwargs)
        return loaded if with_report else loaded[0]

    def forward(self, inputs: Mapping[str, Values]) -> ImageBindOutput:
        """Embeddings of every modality that is there.

        Args:
            inputs: modality -> values, as ``ImageBindProcessor`` makes them. Images (R, 3, S, T), clips of
                one or two frames (R, 3, F, S, T), several (R, clips, 3, F, S, T); texts (R, 77); audio
                (R, clips, 1, 128, 204); depth and heat (R, 1, S, T); IMU (R, 6, 2000); points (R, N, 3), or a
                list of (N, 3). All but texts and points may have an axis of clips behind the first.

        Raises:
            UserError: a modality is unknown or not loaded, or its values have another shape.
        """
        output = ImageBindOutput()
        for name, values in inputs.items():
            tower = self.tower(name)
            if name == "point" and not isinstance(values, Tensor):
                features = tower(values)
                embeddings = tower.embed(features)
            else:
                clips = as_clips(name, values)
                features = tower(clips.values)
                embeddings = clips.mean(tower.embed(features))
                features = clips.mean(features)
            output.embeddings[name], output.features[name] = embeddings, features
        return output

    def tower(self, modality: str) -> Tower:
        """The tower of a modality.

        Raises:
            UserError: there is none.
        """
        if modality not in self.towers:
            raise UserError(
                f"{modality!r} is no modality of this model. "
                f"Use some of {list(self.towers)}, or load the model with it."
            )
        return self.towers[modality]  # type: ignore[return-value]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Random weights for what a checkpoint does not have."""
        super()._init_weights(module)
        for name, parameter in module.named_parameters(recurse=False):
            if name in _TOKENS:
                init.normal_(parameter, mean=0.0, std=self.config.initializer_range)
        if isinstance(module, Tower) and module.log_scale is not None and module.config.scale is not None:
            init.copy_(module.log_scale, torch.tensor(module.config.scale).log())


def as_clips(modality: str, values: Values) -> Clips:
    """Values of one modality as clips, one per record where there is no axis of clips.

    Raises:
        UserError: they have no shape of that modality.
    """
    if isinstance(values, Clips):
        return values
    if not isinstance(values, Tensor):
        raise UserError(f"Values of {modality!r} are a {type(values).__name__}. Use a tensor or Clips.")
    single = _IMAGE_DIMENSIONS if modality == "vision" else _SINGLE[modality]
    if modality == "vision" and (values.ndim == _CLIP_DIMENSIONS or _is_one_clip(values)):
        single = _CLIP_DIMENSIONS - 1
    if values.ndim == single:
        return Clips(values, (1,) * len(values))
    if values.ndim == single + 1 and modality not in ("text", "point"):
        return Clips(values.flatten(0, 1), (values.shape[1],) * len(values))
    raise UserError(
        f"Values of {modality!r} have the shape {tuple(values.shape)}. "
        f"Use {single} dimensions, or one more behind the first for clips."
    )


def _is_one_clip(values: Tensor) -> bool:
    """Whether five dimensions are one video clip per record, not several images."""
    return values.ndim == _CLIP_DIMENSIONS - 1 and values.shape[1] == 3 and values.shape[2] != 3
