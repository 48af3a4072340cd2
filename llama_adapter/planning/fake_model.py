"""A run's model without content: the base of a config.json with its adapter, on a CPU that holds nothing.

Built on torch's meta device, where a 7B model takes a tenth of a second, then turned into fake tensors that
say they are on the CPU: operators, masks and attention kernels are chosen for them as for real tensors, which
is not so on meta. It does not know what is done with the model.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Shaped
from peft import PeftModel
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import PretrainedConfig, PreTrainedModel

from llama_adapter.errors import UserError
from llama_adapter.models import BaseModelConfig, attach_adapter, empty_base
from llama_adapter.multimodal import ImageConditionedModel
from llama_adapter.training.groups import ParameterGroups
from llama_adapter.training.parts import TrainedParts
from llama_adapter.training.run import TrainConfig
from llama_adapter.training.tuning import Batch
from llama_adapter.vision import empty_encoder


def base_dtype(base: BaseModelConfig, config: PretrainedConfig) -> torch.dtype:
    """Precision of the base weights; `auto` is the one they were saved in."""
    if base.dtype == "auto":
        return getattr(config, "dtype", None) or torch.float32
    found = getattr(torch, base.precision)
    return found if isinstance(found, torch.dtype) else torch.float32


class FeatureShape(NamedTuple):
    """Features of an image."""

    tokens: int
    """How many there are."""
    width: int
    """Of each, all levels together."""


def build_on_meta(
    base_config: PretrainedConfig,
    config: TrainConfig,
    dtype: torch.dtype,
    features: FeatureShape | None = None,
) -> nn.Module:
    """The base in ``dtype`` with what the run trains, all on the meta device.

    Args:
        base_config: of the base.
        config: of the run.
        dtype: of the base's weights.
        features: of an image, for runs with images.

    Raises:
        UserError: the adapter does not fit the base.
    """
    precision: Any = str(dtype).removeprefix("torch.")
    base = replace(config.base, dtype=precision)
    with torch.device("meta"):
        if config.tuning is None:
            whole = _adapted(empty_base(base, base_config), config, features)
        else:
            whole = config.tuning.empty_model(base, config.data)
    ParameterGroups(TrainedParts.of(whole), config.groups)  # freezes what is in none
    return whole


def _adapted(model: PreTrainedModel, config: TrainConfig, features: FeatureShape | None) -> nn.Module:
    """A frozen base with an adapter, and a conditioner where images are shown."""
    if config.adapter is None:
        raise UserError(f"adapter is {config.adapter}. Use one, or tuning.")
    model.requires_grad_(False)
    adapted = attach_adapter(model, config.adapter)
    return adapted if config.images is None else _seeing(adapted, config, features)


def _seeing(adapted: PeftModel, config: TrainConfig, features: FeatureShape | None) -> nn.Module:
    """With the conditioner, and the encoder where it is needed in every step."""
    if config.images is None or features is None:
        raise UserError(f"The conditioner needs the shape of features, which is {features}. Use both.")
    conditioner = config.images.make_conditioner(adapted, features.width, config.prompt_length)
    encoder = empty_encoder(config.images.vision) if config.data.images == "live" else None
    return ImageConditionedModel(adapted, conditioner, encoder)


def feature_shape(config: TrainConfig, tokens: int | None, width: int | None) -> FeatureShape | None:
    """What a run's encoder gives for an image; None for a run without images.

    Args:
        config: of the run.
        tokens: stated by the user, together with ``width``; None reads the encoder's settings.
        width: likewise.

    Raises:
        UserError: its settings cannot be read.
    """
    if config.images is None:
        return None
    if tokens is not None and width is not None:
        return FeatureShape(tokens, width)
    try:
        return FeatureShape(*empty_encoder(config.images.vision).feature_shape)
    except UserError as error:
        raise UserError(
            f"The image encoder is not at hand: {error} Or state its features with --feature-tokens and "
            "--feature-width (CLIP ViT-L/14 with projection: 257 and 768)."
        ) from error


def show_conditioner(
    features: FeatureShape,
    pixels: Sequence[int] | None,
    model: nn.Module,
    batch: Batch,
    has_image: Sequence[bool],
) -> dict[str, Any]:
    """A batch with what a conditioner takes of its images, see ``PlannedImages.show``.

    Args:
        features: of an image.
        pixels: height and width of images that are encoded in the step; None where features are kept.
        model: not looked at.
        batch: of text.
        has_image: which records have one.
    """
    del model
    if not any(has_image):
        return dict(batch)
    seen = torch.tensor(has_image)
    if pixels is not None:
        return {**batch, "pixel_values": torch.zeros(sum(has_image), 3, *pixels), "has_image": seen}
    tokens, width = features
    return {
        **batch,
        "features": torch.zeros(len(seen), tokens, width, dtype=torch.float16),
        "feature_mask": seen[:, None].expand(-1, tokens),
    }


def to_fake_cpu(model: nn.Module, mode: FakeTensorMode) -> nn.Module:
    """Gives every parameter and buffer of a meta model the fake device "cpu", in place; ties stay tied."""
    made: dict[int, Any] = {}

    def fake(tensor: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
        if id(tensor) not in made:
            with mode:
                bare = torch.empty_like(tensor, device="cpu", requires_grad=False)
            is_parameter = isinstance(tensor, nn.Parameter)
            made[id(tensor)] = nn.Parameter(bare, tensor.requires_grad) if is_parameter else bare
        found: Tensor = made[id(tensor)]
        return found

    for module in model.modules():
        stores: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
        for store in stores:
            for name, tensor in store.items():
                if tensor is not None:
                    store[name] = fake(tensor)
    return model
