"""Arithmetic on embeddings: a weighted sum of records of any modalities, row by row.

Unusual: weights may be negative. They are divided by their sum, and the sum of the embeddings is not
normalised again, as ImageBind-LLM was trained; so a single image is scaled by 1/(1 + 1e-6). Other rules have
names. Source: docs/sources/llama-adapter.md#arithmetic, 12.

Dimensions: R records, E width of the shared space.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from llama_adapter.errors import UserError
from llama_adapter.media import Mixing

_EPSILON = 1e-6


def mix(
    embeddings: Sequence[Float[Tensor, "R E"]],
    weights: Sequence[float] | Sequence[Float[Tensor, " R"]],
    rule: Mixing = "published",
) -> Float[Tensor, "R E"]:
    """The mix of several inputs of each record.

    Args:
        embeddings: one per input, of any modality and length; each is normalised first.
        weights: one per input, the same for all records or one for each.
        rule: what becomes of the length of the sum.

    Raises:
        UserError: there is nothing to mix, a weight is missing, or weights cancel each other.
    """
    mixed = weighted_mean([functional.normalize(values, dim=-1) for values in embeddings], weights)
    return functional.normalize(mixed, dim=-1) if rule == "unit" else mixed


def weighted_mean(
    vectors: Sequence[Float[Tensor, "R E"]], weights: Sequence[float] | Sequence[Float[Tensor, " R"]]
) -> Float[Tensor, "R E"]:
    """The same of vectors as they are.

    Args:
        vectors: one per input.
        weights: see ``mix``.

    Raises:
        UserError: see ``mix``.
    """
    if not vectors or len(vectors) != len(weights):
        raise UserError(
            f"There are {len(vectors)} inputs and {len(weights)} weights. Give each input one weight."
        )
    shares = torch.stack(
        [torch.as_tensor(weight, device=vectors[0].device).expand(len(vectors[0])) for weight in weights]
    ).to(vectors[0].dtype)
    total = shares.sum(0)
    if bool((total.abs() < _EPSILON).any()):
        raise UserError(
            f"The weights {shares[:, total.abs().argmin()].tolist()} of a record add up to 0. "
            "Change one of them, since they are divided by their sum."
        )
    return torch.einsum("mr,mre->re", shares / (total + _EPSILON), torch.stack(list(vectors)))
