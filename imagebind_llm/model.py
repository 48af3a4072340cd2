"""ImageBind-LLM as one model: a language model, its adapter, the bind network, and every modality as input.

The adapter is that of the preset ``imagebind``. The model is the core's model that sees, whose one feature
per row is an embedding of the shared space; what is added here is how embeddings come in. Training, saving,
Auto classes and `generate` are those of the core.

Dimensions: R rows, T tokens, E width of the shared space.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from imagebind_llm.loading import LoadedMixes, Row, as_mix, load_mixes
from imagebind_llm.senses import Senses
from llama_adapter.errors import UserError
from llama_adapter.media import Mixing
from llama_adapter.models import BaseModelConfig
from llama_adapter.multimodal.model import ImageConditionedModel
from llama_adapter.vision import VisionEncoder


class Blends(Protocol):
    """What changes embeddings, such as a ``VisualCache``."""

    def blend(self, embeddings: Float[Tensor, "R E"]) -> Float[Tensor, "R E"]:
        """The embeddings that are used instead."""


class ImageBindLlm(ImageConditionedModel):
    """Answers questions about inputs of any modality, and about mixes of them."""

    cache: Blends | None = None
    """Changes embeddings before the bind network takes them."""
    mixing: Mixing = "published"
    """What becomes of the length of a mix."""

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        folder: str | Path,
        base: BaseModelConfig | None = None,
        encoder: VisionEncoder | Literal["saved"] | None = None,
        trainable: bool = False,
        **options: Any,
    ) -> "ImageBindLlm":
        """The model of a folder; see ``ImageConditionedModel``.

        Args:
            folder: of an adapter.
            base: the frozen language model; None for the one that the adapter names.
            encoder: None, since towers are loaded when an input needs them; ``saved`` to give pixels to
                ``forward``, as training does.
            trainable: whether adapter and bind network can be trained further.
            options: see there.

        Raises:
            UserError: a part is missing or does not fit, or an option is unknown.
        """
        return cast("ImageBindLlm", super().from_pretrained(folder, base, encoder, trainable, **options))

    def embed(self, rows: Sequence[Row]) -> tuple[Float[Tensor, "R E"], Bool[Tensor, " R"]]:
        """Embeddings of rows, each a mix of its inputs, as ``forward`` takes them.

        Args:
            rows: of each row its inputs; None for a row of text alone.

        Returns:
            The embeddings, and which rows have one.

        Raises:
            UserError: a file cannot be used, or weights cancel each other.
        """
        mixes = [as_mix(row) for row in rows]
        if not any(mixes):
            width, device = self.conditioner.config.feature_width, self.device
            return torch.zeros(len(rows), width, device=device), torch.zeros(
                len(rows), dtype=torch.bool, device=device
            )
        found = self._shown(load_mixes(mixes, self._senses.processor))
        return found["features"][:, 0], found["feature_mask"][:, 0]

    def forward(  # type: ignore[override]
        self,
        input_ids: Int[Tensor, "R T"],
        mixes: LoadedMixes | None = None,
        embeddings: Float[Tensor, "R E"] | None = None,
        has_embedding: Bool[Tensor, " R"] | None = None,
        **inputs: Any,
    ) -> Any:
        """The language model's output.

        Args:
            input_ids: tokens.
            mixes: what each row is shown, as ``ImageBindLlmProcessor`` gives it.
            embeddings: instead, of every row, as ``embed`` makes them; those of rows without inputs do not
                matter.
            has_embedding: which rows have one; None for all.
            inputs: what ``ImageConditionedModel.forward`` takes besides.

        Raises:
            UserError: mixes and embeddings came, or mixes of another number of rows, or weights of one
                cancel each other.
        """
        return super().forward(
            input_ids, **self._features(input_ids, mixes, embeddings, has_embedding), **inputs
        )

    def generate(  # type: ignore[override]
        self,
        input_ids: Int[Tensor, "R T"],
        mixes: LoadedMixes | None = None,
        embeddings: Float[Tensor, "R E"] | None = None,
        has_embedding: Bool[Tensor, " R"] | None = None,
        **options: Any,
    ) -> Any:
        """The language model's own ``generate``; what rows are shown as in ``forward``."""
        return super().generate(
            input_ids, **self._features(input_ids, mixes, embeddings, has_embedding), **options
        )

    def _features(
        self,
        input_ids: Int[Tensor, "R T"],
        mixes: LoadedMixes | None,
        embeddings: Float[Tensor, "R E"] | None,
        has_embedding: Bool[Tensor, " R"] | None,
    ) -> dict[str, Tensor]:
        """Embeddings under the names of the core."""
        if mixes is not None:
            if embeddings is not None or len(mixes.rows) != len(input_ids):
                raise UserError(
                    f"Inputs of {len(mixes.rows)} rows came to {len(input_ids)} rows of tokens"
                    f"{' together with embeddings' if embeddings is not None else ''}. "
                    "Use one row of inputs for each text, or embeddings alone."
                )
            return self._shown(mixes)
        if embeddings is None:
            return {}
        mask = {} if has_embedding is None else {"feature_mask": has_embedding[:, None]}
        return {"features": embeddings[:, None], **mask}

    def _shown(self, mixes: LoadedMixes) -> dict[str, Tensor]:
        """Mixed, and changed by the cache."""
        senses = self._senses
        senses.mixing, senses.blend = self.mixing, None if self.cache is None else self.cache.blend
        return senses.loaded(mixes)

    @cached_property
    def _senses(self) -> Senses:
        return Senses(self)
