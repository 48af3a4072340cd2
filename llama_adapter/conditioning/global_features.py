"""LLaMA-Adapter V1's conditioner: global features of several layers -> one vector for all prompts.

The paper (arXiv 2303.16199) joins global features of several scales, projects them to the hidden size and
adds the result to every prompt of every adapted layer. Its code was not published. Chosen here: an MLP with
one inner layer, whose default width gives a 7B model about the paper's 0.6M additional parameters (1.8M with
images, 1.2M without); and a LayerNorm before it, because layers differ in scale.

Dimensions: R records, N global features of a record, C their width, H hidden size of the language model.
"""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Bool, Float
from torch import Tensor, nn

from llama_adapter.conditioning.base import Conditioner, ConditionerConfig, register_conditioner


@dataclass(kw_only=True)
class GlobalFeaturesConfig(ConditionerConfig):
    """One vector from global features."""

    kind: Literal["global_features"] = "global_features"
    """Always ``global_features``."""
    inner_width: int = 128
    """Width between the two linear maps."""


@register_conditioner("global_features", GlobalFeaturesConfig)
class GlobalFeatures(Conditioner):
    """Norm, linear map, GELU, linear map."""

    num_tokens = 1

    def __init__(self, config: GlobalFeaturesConfig) -> None:
        super().__init__(config)
        self.norm = nn.LayerNorm(config.feature_width)
        self.inner = nn.Linear(config.feature_width, config.inner_width)
        self.activation = nn.GELU()
        self.outer = nn.Linear(config.inner_width, config.hidden_size)

    def vectors(
        self, features: Float[Tensor, "R N C"], mask: Bool[Tensor, "R N"] | None
    ) -> Float[Tensor, "R 1 H"]:
        """Project; ``mask`` says nothing here, since a record has one token or none."""
        return self.outer(self.activation(self.inner(self.norm(features))))
