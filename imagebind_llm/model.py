"""ImageBind-LLM as one model: a language model, its adapter, the bind network, and every modality as input.

The adapter is that of the preset ``imagebind``. The model is the core's model that sees, whose one feature
per row is an embedding of the shared space; what is added here is how embeddings come in. Training, saving,
Auto classes and `generate` are those of the core.

Dimensions: R rows, T tokens, E width of the shared space.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from imagebind_llm.mixing import Rule
from imagebind_llm.senses import Senses
from llama_adapter.errors import UserError
from llama_adapter.multimodal.inputs import MODALITIES, Mix, WeightedInput
from llama_adapter.multimodal.model import ImageConditionedModel
from llama_adapter.multimodal.sight import Blend

Row: TypeAlias = Sequence[tuple[str, Any] | tuple[str, Any, float]] | Mix | None
"""What a row is shown: (modality, file or text, weight), the weight being 1 where it is left out."""


class ImageBindLlm(ImageConditionedModel):
    """Answers questions about inputs of any modality, and about mixes of them."""

    cache: Blend | None = None
    """Changes embeddings before the bind network takes them, such as ``VisualCache.blend``."""

    def embed(
        self, rows: Sequence[Row], rule: Rule = "published"
    ) -> tuple[Float[Tensor, "R E"], Bool[Tensor, " R"]]:
        """Embeddings of rows, each a mix of its inputs.

        Args:
            rows: of each row its inputs; None for a row of text alone.
            rule: what becomes of the length of a mix; see ``mixing``.

        Returns:
            The embeddings, and which rows have one.

        Raises:
            UserError: a file cannot be used, or weights cancel each other.
        """
        self._senses.rule, self._senses.blend = rule, self.cache
        found = self._senses.inputs([_mix_of(row) for row in rows])
        if not found:
            width = self.conditioner.config.feature_width
            return torch.zeros(len(rows), width), torch.zeros(len(rows), dtype=torch.bool)
        return found["features"][:, 0], found["feature_mask"][:, 0]

    def forward(  # type: ignore[override]
        self,
        input_ids: Int[Tensor, "R T"],
        embeddings: Float[Tensor, "R E"] | None = None,
        has_embedding: Bool[Tensor, " R"] | None = None,
        **inputs: Any,
    ) -> Any:
        """The language model's output.

        Args:
            input_ids: tokens.
            embeddings: of every row, as ``embed`` makes them; those of rows without inputs do not matter.
            has_embedding: which rows have one; None for all.
            inputs: what ``ImageConditionedModel.forward`` takes besides.
        """
        return super().forward(input_ids, **_as_features(embeddings, has_embedding), **inputs)

    def generate(  # type: ignore[override]
        self,
        input_ids: Int[Tensor, "R T"],
        embeddings: Float[Tensor, "R E"] | None = None,
        has_embedding: Bool[Tensor, " R"] | None = None,
        **options: Any,
    ) -> Any:
        """The language model's own ``generate``; embeddings as in ``forward``."""
        return super().generate(input_ids, **_as_features(embeddings, has_embedding), **options)

    @cached_property
    def _senses(self) -> Senses:
        return Senses(self)


def _as_features(
    embeddings: Float[Tensor, "R E"] | None, has_embedding: Bool[Tensor, " R"] | None
) -> dict[str, Tensor]:
    """Embeddings under the names of the core."""
    if embeddings is None:
        return {}
    mask = {} if has_embedding is None else {"feature_mask": has_embedding[:, None]}
    return {"features": embeddings[:, None], **mask}


def _mix_of(row: Row) -> Mix | None:
    """A row's inputs.

    Raises:
        UserError: a modality is unknown.
    """
    if row is None or isinstance(row, Mix):
        return row
    inputs = [WeightedInput(*one) for one in row]
    if unknown := next((one.modality for one in inputs if one.modality not in MODALITIES), None):
        raise UserError(f"Unknown modality {unknown!r}. Use some of {MODALITIES}.")
    return Mix(tuple(inputs)) if inputs else None
