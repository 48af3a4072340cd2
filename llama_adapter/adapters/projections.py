"""How prompts become keys and values: through the attention module's own frozen projections.

Adding a build of attention module means adding a line to ``LAYOUTS``.

Dimensions: B batch, P prompt length, H hidden size, G key/value heads, D head size.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from llama_adapter.adapters.structure import linear_features
from llama_adapter.errors import UserError

_UNKNOWN_KEY_NORM = re.compile(r"^(k|key|qk)_(\w*_)?(layer_?)?norm$")


@dataclass(frozen=True)
class AttentionShape:
    """Sizes of one attention module as its prompts need them."""

    hidden_size: int
    """Width of what enters the key and value projections."""
    num_heads: int
    """Query heads."""
    head_size: int
    """Width of one head."""


@dataclass(frozen=True)
class Layout:
    """One way in which attention modules name and arrange their key and value projections."""

    names: tuple[str, ...]
    """Attributes that a module of this layout has."""
    project: Callable[[nn.Module, Tensor], tuple[Tensor, Tensor]]
    """(module, prompts (B, P, H)) -> keys and values, (B, P, heads * head size) each."""


def attention_shape(attention: nn.Module) -> AttentionShape:
    """Sizes of an attention module.

    Raises:
        UserError: the module's projections, or a norm on its keys, are of an unknown build.
    """
    features = linear_features(attention.get_submodule(_layout(attention).names[0]))
    owners = (attention, getattr(attention, "config", None))
    head_size = _first_of(owners, ("head_dim", "attention_head_size"))
    num_heads = _first_of(owners, ("num_heads", "num_attention_heads"))
    if features is None or head_size is None or num_heads is None:
        raise UserError(
            f"{type(attention).__name__} does not say its head size and number of heads. "
            f"Use prompt_length=0 with deltas for this model."
        )
    unknown = [
        name for name, _ in attention.named_children() if name != "k_norm" and _UNKNOWN_KEY_NORM.match(name)
    ]
    if unknown:
        raise UserError(
            f"{type(attention).__name__} normalises its keys by {unknown[0]!r}, which prompts do not know. "
            f"Use prompt_length=0 with deltas for this model."
        )
    return AttentionShape(features[0], num_heads, head_size)


def project_prompts(
    attention: nn.Module, prompts: Float[Tensor, "B P H"], head_size: int
) -> tuple[Float[Tensor, "B G P D"], Float[Tensor, "B G P D"]]:
    """Keys and values of prompts.

    Prompts enter raw: no input norm, no rotary embedding. A norm that the model puts on its keys, per head as
    Qwen3 or over all heads as OLMo2, does apply: the queries they meet are normalised too.
    """
    keys, values = _layout(attention).project(attention, prompts)
    norm: Any = getattr(attention, "k_norm", None)
    over_all_heads = norm is not None and norm.weight.dim() == 1 and norm.weight.numel() != head_size
    if over_all_heads:
        keys = norm(keys)
    keys = keys.unflatten(-1, (-1, head_size))
    values = values.unflatten(-1, (-1, head_size))
    if norm is not None and not over_all_heads:
        keys = norm(keys)
    value_norm: Any = getattr(attention, "v_norm", None)
    if value_norm is not None:
        values = value_norm(values)
    return keys.transpose(1, 2), values.transpose(1, 2)


def _separate(key: str, value: str) -> Layout:
    """Keys and values from two linear maps."""
    return Layout(
        (key, value), lambda a, x: (_through(a.get_submodule(key), x), _through(a.get_submodule(value), x))
    )


def _fused(name: str, width_of: Callable[[Any, Tensor], int]) -> Layout:
    """Queries, keys and values side by side from one linear map: keys and values are its last columns.

    Args:
        name: attribute of the linear map.
        width_of: (attention module, the map's output (B, P, width)) -> width of the keys.
    """

    def project(attention: nn.Module, prompts: Tensor) -> tuple[Tensor, Tensor]:
        """Prompts (B, P, H) -> keys and values, (B, P, heads * head size) each."""
        fused = _through(attention.get_submodule(name), prompts)
        width = width_of(attention, fused)
        return fused[..., -2 * width : -width], fused[..., -width:]

    return Layout((name,), project)


LAYOUTS = (
    _separate("k_proj", "v_proj"),  # most models
    _separate("key", "value"),  # BERT and its kin
    _fused("qkv_proj", lambda attention, _: attention.num_key_value_heads * attention.head_dim),  # Phi-3
    _fused("c_attn", lambda _, fused: fused.shape[-1] // 3),  # GPT-2
)


def _layout(attention: nn.Module) -> Layout:
    """The layout of an attention module's projections."""
    for layout in LAYOUTS:
        if all(isinstance(getattr(attention, name, None), nn.Module) for name in layout.names):
            return layout
    known = [" + ".join(layout.names) for layout in LAYOUTS]
    raise UserError(
        f"{type(attention).__name__} has none of the known key/value projections {known}. "
        f"Use prompt_length=0 with deltas for this model."
    )


def _through(projection: nn.Module, prompts: Tensor) -> Tensor:
    """Apply a projection to prompts (B, P, H); an adapted one has a path for them without LoRA."""
    return getattr(projection, "forward_prompts", projection)(prompts)


def _first_of(owners: tuple[object, ...], names: tuple[str, ...]) -> int | None:
    """The first attribute among ``names`` that one of ``owners`` has."""
    for owner in owners:
        for name in names:
            value = getattr(owner, name, None)
            if isinstance(value, int):
                return value
    return None
