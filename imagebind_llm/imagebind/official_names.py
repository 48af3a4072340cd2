"""The names of ImageBind's official tensors, and of Point-Bind's, beside ours.

Unusual: names of ours are turned into official ones, part by part; which tensors there are, our model says.
Two kinds are stored in another form. Source: docs/sources/imagebind.md#heads.

Dimensions: D width; W width before the head; L tokens of a text; ``...`` any shape.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

TEXT_MASK = "modality_preprocessors.text.mask"
"""A buffer that follows from the length of a text; ours has no place for it."""

_STEMS = {
    "vision": "rgbt_stem",
    "audio": "rgbt_stem",
    "thermal": "rgbt_stem",
    "depth": "depth_stem",
    "imu": "imu_stem",
}

_LAYER = {
    "attention.qkv.weight": "attn.in_proj_weight",
    "attention.qkv.bias": "attn.in_proj_bias",
    "attention.extra_key": "attn.bias_k",
    "attention.extra_value": "attn.bias_v",
    "attention.out": "attn.out_proj",
    "attention_norm": "norm_1",
    "mlp_norm": "norm_2",
    "mlp.up": "mlp.fc1",
    "mlp.down": "mlp.fc2",
}
"""Parts of a block: ours -> ImageBind's."""

_POINT_LAYER = {
    "attention.qkv": "attn.qkv",
    "attention.out": "attn.proj",
    "attention_norm": "norm1",
    "mlp_norm": "norm2",
    "mlp.up": "mlp.fc1",
    "mlp.down": "mlp.fc2",
}
"""Parts of a block of the point encoder."""

_POINT = {
    "class_token": "cls_token",
    "class_position": "cls_pos",
    "group_encoder.points": "encoder.first_conv",
    "group_encoder.joined": "encoder.second_conv",
    "widen": "reduce_dim",
    "position": "pos_embed",
    "norm": "norm",
}
"""Other parts of the point encoder."""


@dataclass(frozen=True)
class OfficialTensor:
    """One official tensor and how it becomes ours."""

    name: str
    """In the official file."""
    to_ours: Callable[[Shaped[Tensor, "..."]], Shaped[Tensor, "..."]]
    """From the official form."""
    to_official: Callable[[Shaped[Tensor, "..."]], Shaped[Tensor, "..."]]
    """And back."""


def official_tensors(names: Iterable[str]) -> dict[str, OfficialTensor]:
    """Our names -> the official tensors."""
    return {name: _official(name) for name in names}


def text_mask(length: int) -> Float[Tensor, "L L"]:
    """The buffer that official files have for texts: -inf above the diagonal."""
    return torch.full((length, length), -torch.inf).triu(1)


def _official(name: str) -> OfficialTensor:
    """The official tensor of one of ours."""
    _, modality, path = name.split(".", 2)
    official = _point(path) if path.startswith("encoder.") else _path(modality, path)
    if path.endswith(("extra_key", "extra_value")):
        return OfficialTensor(official, lambda tensor: tensor.flatten(), lambda tensor: tensor.view(1, 1, -1))
    if path == "encoder.projection.weight":
        return OfficialTensor(official, _transposed, _transposed)
    return OfficialTensor(official, lambda tensor: tensor, lambda tensor: tensor)


def _transposed(tensor: Shaped[Tensor, "D W"]) -> Shaped[Tensor, "W D"]:
    """Inputs and outputs of a map in the other order."""
    return tensor.T.contiguous()


def _path(modality: str, path: str) -> str:
    """Official name of a tensor of ImageBind."""
    part, _, rest = path.partition(".")
    if part == "stem":
        return f"modality_preprocessors.{modality}.{_stem(modality, rest)}"
    if part == "transformer":
        layer = re.fullmatch(r"layers\.(\d+)\.(.+)", rest)
        inner = (
            f"blocks.{layer[1]}.{_renamed(layer[2], _LAYER)}"
            if layer
            else f"pre_transformer_layer.0.{rest[5:]}"
        )
        return f"modality_trunks.{modality}.{inner}"
    if part == "head":
        return f"modality_heads.{modality}.{_head(modality, rest)}"
    return f"modality_postprocessors.{modality}.1.log_logit_scale"


def _stem(modality: str, rest: str) -> str:
    """Inside a preprocessor."""
    stem = _STEMS.get(modality, "")
    helper = "" if modality in ("text", "imu") else "pos_embedding_helper."
    names = {
        "projection": f"{stem}.proj.1" if modality == "vision" else f"{stem}.proj",
        "norm": f"{stem}.norm_layer",
        "class_token": "cls_token",
        "position": f"{helper}pos_embed",
        "embedding": "token_embedding",
    }
    return _renamed(rest, names)


def _head(modality: str, rest: str) -> str:
    """Inside a head, whose parts are numbered."""
    if modality == "text":
        return _renamed(rest, {"norm": "proj.0", "projection": "proj.1"})
    # a dropout stands before the projection of IMU
    return _renamed(rest, {"norm": "0", "projection": "3" if modality == "imu" else "2"})


def _point(path: str) -> str:
    """Official name of a tensor of the point encoder."""
    rest = path.removeprefix("encoder.")
    if rest == "projection.weight":
        return "point_trunk.pc_projection"
    layer = re.fullmatch(r"transformer\.layers\.(\d+)\.(.+)", rest)
    if layer:
        inner = f"blocks.blocks.{layer[1]}.{_renamed(layer[2], _POINT_LAYER)}"
    else:
        inner = _renamed(rest, _POINT)
    return f"point_trunk.point_encoder.{inner}"


def _renamed(path: str, names: dict[str, str]) -> str:
    """A path whose beginning has another name in the official files."""
    for ours, official in names.items():
        if path == ours or path.startswith(f"{ours}."):
            return official + path.removeprefix(ours)
    raise KeyError(path)
