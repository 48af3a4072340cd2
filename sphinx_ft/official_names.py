"""The names of SPHINX's official tensors beside ours, for reading and writing.

A table of prefixes and parts, and which official tensors hold several of ours. Which tensors there are, our
model says. The language model's are those of its own family (``llama_adapter.checkpoints``).
Source: docs/sources/sphinx.md#encoders.
"""

import re
from collections.abc import Iterable, Mapping

from llama_adapter.checkpoints.stored import StackedRows, Stored
from llama_adapter.errors import UserError

LANGUAGE_MODEL = "language_model."
"""In front of our names of the language model."""
PREFIX = "llma."
"""In front of all official names."""

_PREFIXES = {
    "encoders.members.clip.tower.model.": "clip.visual.",
    "encoders.members.convnext.model.": "openclip_convnext_xxl.",
    "encoders.members.dinov2.model.": "dinov2_vitg14.",
    "encoders.members.qformer.": "qformer.",
    "view_tokens.mixed_projection.": "visual_proj.",
    "view_tokens.query_projections.qformer.": "qformer_proj.",
    "view_tokens.start": "start_img",
    "view_tokens.end": "end_img",
}
"""Ours -> official."""

_DINOV2 = {
    "embeddings.cls_token": "cls_token",
    "embeddings.mask_token": "mask_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection": "patch_embed.proj",
    "layernorm": "norm",
}
"""Parts of DINOv2 outside its blocks."""

_DINOV2_BLOCK = {
    "norm1": "norm1",
    "norm2": "norm2",
    "attention.q_proj": "attn.qkv",
    "attention.k_proj": "attn.qkv",
    "attention.v_proj": "attn.qkv",
    "attention.o_proj": "attn.proj",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
    "mlp.gate_proj": "mlp.w12",
    "mlp.up_proj": "mlp.w12",
    "mlp.down_proj": "mlp.w3",
    "attention.attention.query": "attn.qkv",
    "attention.attention.key": "attn.qkv",
    "attention.attention.value": "attn.qkv",
    "attention.output.dense": "attn.proj",
    "mlp.weights_in": "mlp.w12",
    "mlp.weights_out": "mlp.w3",
}
"""Parts of a block, as transformers' modules are called and, below, as it saves them. Those of one official
name share a tensor, in this order."""

UNUSED = {
    r"clip\.(positional_embedding|text_projection|logit_scale|token_embedding\.weight|ln_final\..+)": (
        "CLIP's text part, which nothing uses"
    ),
    r"clip\.attn_mask": "a constant of CLIP's text part, which nothing uses",
    r"qformer\..*position_ids": "transformers computes them itself",
}
"""Official tensors that ours has no place for, as patterns of whole names -> why."""
UNOFFICIAL = ("view_tokens.skip",)
"""Ours that no official file has: what stands for views that are skipped was never published."""


def official_tensors(shapes: Mapping[str, tuple[int, ...]]) -> list[Stored]:
    """The official tensors of everything but the language model.

    Args:
        shapes: our names -> shapes; those of the language model and ``UNOFFICIAL`` are left out.

    Raises:
        UserError: a tensor is of an encoder that no official model has.
    """
    found: dict[str, dict[str, tuple[int, ...]]] = {}
    for name in _ours(shapes):
        found.setdefault(official_name(name), {})[name] = tuple(shapes[name])
    return [_stored(official, weights) for official, weights in found.items()]


def official_name(name: str) -> str:
    """The official tensor that holds one of ours, without ``PREFIX``.

    Raises:
        UserError: none does.
    """
    for ours, official in _PREFIXES.items():
        if name.startswith(ours):
            rest = name.removeprefix(ours)
            return official + (_dinov2(rest) if official == "dinov2_vitg14." else rest)
    raise UserError(
        f"{name!r} has no place in official files. Use encoders of the kinds clip, convnext, dinov2 and "
        "qformer under their own names."
    )


def _ours(names: Iterable[str]) -> list[str]:
    """Those that official files have."""
    return [name for name in names if not name.startswith((LANGUAGE_MODEL, *UNOFFICIAL))]


def _stored(official: str, weights: dict[str, tuple[int, ...]]) -> Stored:
    """One official tensor."""
    parts, first = len(weights), next(iter(weights.values()))
    if parts == 1:
        return Stored(name=official, shape=first, weights=weights)
    weights = dict(sorted(weights.items(), key=lambda item: _place(item[0])))
    shape = (parts * first[0], *first[1:])
    return Stored(name=official, shape=shape, weights=weights, layout=StackedRows(parts))


def _place(name: str) -> int:
    """The place of a weight of DINOv2 among those that share a tensor."""
    return next(place for place, part in enumerate(_DINOV2_BLOCK) if f".{part}." in name)


def _dinov2(path: str) -> str:
    """Inside DINOv2."""
    block = re.fullmatch(r"(?:encoder\.)?layers?\.(\d+)\.(.+)", path)
    if block:
        return f"blocks.{block[1]}.{_renamed(block[2], _DINOV2_BLOCK)}"
    return _renamed(path, _DINOV2)


def _renamed(path: str, names: Mapping[str, str]) -> str:
    """A path whose beginning has another name in official files."""
    for ours, official in names.items():
        if path == ours or path.startswith(f"{ours}."):
            return official + path.removeprefix(ours)
    raise UserError(f"{path!r} of DINOv2 has no place in official files. Use transformers 5.23 or newer.")
