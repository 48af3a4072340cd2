"""The bind network of ImageBind-LLM: an embedding -> what is added to the one prompt of every layer.

It is a conditioner like those of images: a record's features are one token, its embedding. The prompts, their
gates and everything else of ImageBind-LLM are the adapter of the preset ``imagebind``. Its first releases had
a bridge with LayerNorms and biases. Source: fact sheet 07, sections 5 and 6.

Dimensions: R records, N = 1 token, C width of an embedding, H hidden size of the language model.
"""

import re
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
_OFFICIAL = re.compile(r"image_bind_(norm|f1|f2|f3)_([1-9])\.(weight|bias)")
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
        normed = self.norm(vectors)
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
        ours = {_ours(name): tensor for name, tensor in tensors.items() if name.startswith("image_bind_")}
        if "projection.weight" not in ours or "blocks.0.gate.weight" not in ours:
            raise UserError(
                f"There is no bind network among {len(tensors)} tensors. Use a file of ImageBind-LLM."
            )
        hidden, width = ours["projection.weight"].shape
        network = cls(
            BindConfig(
                hidden_size=hidden,
                feature_width=width,
                inner_width=len(ours["blocks.0.gate.weight"]),
                bridge="legacy" if "blocks.0.gate.bias" in ours else "current",
            )
        )
        try:
            network.load_state_dict(ours)
        except RuntimeError as error:
            raise UserError(
                f"The bind network does not fit: {' '.join(str(error).split())} Use a complete file."
            ) from error
        return network


def _ours(name: str) -> str:
    """Our name of an official tensor; others stay as they are."""
    found = _OFFICIAL.fullmatch(name)
    if found:
        return f"blocks.{int(found[2]) - 1}.{_PARTS[found[1]]}.{found[3]}"
    return name.replace("image_bind_proj.", "projection.")
