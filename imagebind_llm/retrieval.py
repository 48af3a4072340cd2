"""Zero-shot retrieval: which of these belong together, between all pairs of modalities in one call.

Unusual: the scales of the modalities are part of the embeddings, so products of embeddings are logits
already; no temperature is needed. Source: docs/sources/imagebind.md#retrieval.

Dimensions: A, B records of two modalities, E width of the shared space.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from imagebind_llm.imagebind.model import ImageBindModel
from imagebind_llm.processing.processor import ImageBindProcessor, to_device


@dataclass(frozen=True)
class PairScores:
    """How each record of one modality fits each of another."""

    cosine: Float[Tensor, "A B"]
    """Cosines of the embeddings."""
    probability: Float[Tensor, "A B"]
    """Softmax of their products over the second modality."""

    @property
    def best(self) -> list[int]:
        """For each record of the first modality, the likeliest of the second."""
        found: list[int] = self.probability.argmax(1).tolist()
        return found


def similarities(embeddings: Mapping[str, Float[Tensor, "_ E"]]) -> dict[tuple[str, str], PairScores]:
    """Scores of all ordered pairs of modalities.

    Args:
        embeddings: those of ``ImageBindOutput``.

    Returns:
        (asking modality, answering modality) -> scores; with one modality alone, those with itself.
    """
    pairs = list(permutations(embeddings, 2)) or [(name, name) for name in embeddings]
    return {pair: _scores(embeddings[pair[0]].float(), embeddings[pair[1]].float()) for pair in pairs}


@torch.no_grad()
def retrieve(
    model: ImageBindModel,
    processor: ImageBindProcessor,
    files: Mapping[str, str | Path | Sequence[str | Path]],
) -> dict[tuple[str, str], PairScores]:
    """Scores of all pairs of modalities, from files.

    Args:
        model: with the towers that are needed.
        processor: its processor.
        files: modality -> paths; texts for ``text``.

    Raises:
        UserError: a file cannot be used, or a tower is not there.
    """
    return similarities(model(to_device(processor(files), model.device)).embeddings)


def _scores(asking: Float[Tensor, "A E"], answering: Float[Tensor, "B E"]) -> PairScores:
    """Scores of one pair."""
    cosine = functional.normalize(asking, dim=-1) @ functional.normalize(answering, dim=-1).T
    return PairScores(cosine, (asking @ answering.T).softmax(-1))
