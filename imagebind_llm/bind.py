"""The bind network of ImageBind-LLM: an embedding -> what is added to the one prompt of every layer.

It is a conditioner like those of images: a record's features are one token, its embedding. The prompts, their
gates and everything else of ImageBind-LLM are the adapter of the preset ``imagebind``. Its first releases had
a bridge with LayerNorms and biases. Source: docs/sources/llama-adapter.md#arithmetic, 10 and 11.

Dimensions: R records, N = 1 token, C width of an embedding, H hidden size of the language model.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn
from torch.nn import functional

from llama_adapter.conditioning.base import Conditioner, ConditionerConfig, register_conditioner
from llama_adapter.errors import UserError

PUBLISHED_WIDTH = 1024
_BLOCKS = 3
_RMS_EPS, _LAYER_EPS = 1e-6, 1e-5
OFFICIAL = "image_bind_"
"""How the names of the network's tensors begin in official files."""
_OFFICIAL_BLOCK = re.compile(r"image_bind_(norm|f1|f2|f3)_([1-9])\.(weight|bias)")
_OUR_BLOCK = re.compile(r"blocks\.(\d)\.(norm|gate|down|up)\.(weight|bias)")
_PARTS = {"norm": "norm", "f1": "gate", "f2": "down", "f3": "up"}


@dataclass(kw_only=True)
class BindConfig(ConditionerConfig):
    """One vector from an embedding of the shared space."""

    kind: Literal["bind"] = "bind"
    """Always ``bind``."""
    feature_width: int = PUBLISHED_WIDTH
    """Width of the embeddings."""
    inner_width: int = 16384
    """Width inside a block: four times the hidden size of a 7B LLaMA."""
    bridge: Literal["current", "legacy"] = "current"
    """What blocks are made of: RMSNorms and maps without biases, or, as in the first releases, LayerNorms and
    maps with biases."""

    @classmethod
    def of_official(cls, tensors: Mapping[str, Shaped[Tensor, "..."]]) -> "BindConfig":
        """The settings of the network in an official file.

        Raises:
            UserError: the file has no bind network.
        """
        projection, gate = (tensors.get(f"image_bind_{name}.weight") for name in ("proj", "f1_1"))
        if projection is None or gate is None:
            raise UserError(
                f"There is no bind network among {len(tensors)} tensors. Use a file of ImageBind-LLM."
            )
        hidden, width = projection.shape
        legacy = "image_bind_f1_1.bias" in tensors
        return cls(
            hidden_size=hidden,
            feature_width=width,
            inner_width=len(gate),
            bridge="legacy" if legacy else "current",
        )


class BindBlock(nn.Module):
    """A gated MLP behind a norm, added to its input."""

    def __init__(self, config: BindConfig) -> None:
        super().__init__()
        width, inner = config.hidden_size, config.inner_width
        bias = config.bridge == "legacy"
        self.norm = nn.LayerNorm(width, _LAYER_EPS) if bias else nn.RMSNorm(width, _RMS_EPS)
        self.gate = nn.Linear(width, inner, bias=bias)
        self.down = nn.Linear(inner, width, bias=bias)
        self.up = nn.Linear(width, inner, bias=bias)

    def forward(self, vectors: Float[Tensor, "R N H"]) -> Float[Tensor, "R N H"]:
        """One block."""
        normed = self.norm(vectors.to(self.norm.weight.dtype))  # which autocast leaves in half precision
        return vectors + self.down(functional.silu(self.gate(normed)) * self.up(normed))


@register_conditioner("bind", BindConfig)
class BindNetwork(Conditioner):
    """A projection and three blocks."""

    num_tokens = 1

    def __init__(self, config: BindConfig) -> None:
        super().__init__(config)
        self.projection = nn.Linear(config.feature_width, config.hidden_size)
        self.blocks = nn.ModuleList(BindBlock(config) for _ in range(_BLOCKS))

    def vectors(
        self, features: Float[Tensor, "R N C"], mask: Bool[Tensor, "R N"] | None
    ) -> Float[Tensor, "R 1 H"]:
        """Project; ``mask`` says nothing here, since a record has one token or none."""
        vectors = self.projection(features)
        for block in self.blocks:
            vectors = block(vectors)
        return vectors

    @classmethod
    def of_official(cls, tensors: dict[str, Shaped[Tensor, "..."]]) -> "BindNetwork":
        """The network of an official file.

        Args:
            tensors: the file's; those of other parts are left out.

        Raises:
            UserError: the file has no bind network, or a part of one.
        """
        network = cls(BindConfig.of_official(tensors))
        named = {our_name(name): tensor for name, tensor in tensors.items() if name.startswith(OFFICIAL)}
        try:
            network.load_state_dict(named)
        except RuntimeError as error:
            raise UserError(
                f"The bind network does not fit: {' '.join(str(error).split())} Use a complete file."
            ) from error
        return network


def our_name(official: str) -> str:
    """Our name of an official tensor."""
    found = _OFFICIAL_BLOCK.fullmatch(official)
    if found:
        return f"blocks.{int(found[2]) - 1}.{_PARTS[found[1]]}.{found[3]}"
    return official.replace("image_bind_proj.", "projection.")


def official_name(ours: str) -> str:
    """The official name of one of our tensors; a name that the network does not have stays."""
    found = _OUR_BLOCK.fullmatch(ours)
    if found:
        part = next(theirs for theirs, name in _PARTS.items() if name == found[2])
        return f"image_bind_{part}_{int(found[1]) + 1}.{found[3]}"
    return ours.replace("projection.", "image_bind_proj.")
