"""Which positions of a batch carry loss, and the textbook loss of their logits.

The label of position t is scored by the logits of position t - 1, so a row's first label never counts. What
is unusual: positions are kept as a flat index, found once from the labels, so that hidden states are selected
without looking at their values; this also works on tensors without content. How the losses are computed
without all logits is the business of ``labelled_loss``; this file knows no model.

Letters: B rows of the batch, T tokens, N labelled positions, V vocabulary, D anything per position.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.nn import functional

IGNORED = -100
"""A label with this value carries no loss."""


class LabelledPositions:
    """Where the labels of a batch are, shifted to the positions that predict them."""

    def __init__(self, labels: Int[Tensor, "B T"]) -> None:
        """Find the positions.

        Args:
            labels: Token ids, ``-100`` where there is no loss.
        """
        self.shape = labels.shape
        """B and T."""
        predicting = torch.full_like(labels, IGNORED)
        predicting[:, :-1] = labels[:, 1:]
        flat = predicting.flatten()
        self.index: Int[Tensor, " N"] = (flat != IGNORED).nonzero()[:, 0]
        """Positions whose next token is labelled, counted row by row through the whole batch."""
        self.targets: Int[Tensor, " N"] = flat[self.index]
        """The tokens to predict."""
        self.rows: Int[Tensor, " N"] = self.index // labels.shape[1]
        """The batch row of each target."""

    def mapped(self, change: Callable[[Tensor], Tensor]) -> "LabelledPositions":
        """A copy whose tensors went through ``change``: to another device, or into a ``FakeTensorMode``."""
        copy = object.__new__(LabelledPositions)
        copy.shape = self.shape
        copy.index, copy.targets, copy.rows = (
            change(tensor) for tensor in (self.index, self.targets, self.rows)
        )
        return copy

    def select(self, values: Shaped[Tensor, "B T D"]) -> Shaped[Tensor, "N D"]:
        """The labelled positions of a tensor."""
        return values.flatten(0, 1).index_select(0, self.index.to(values.device))

    def losses(self, logits: Float[Tensor, "B T V"], label_smoothing: float = 0.0) -> Float[Tensor, " N"]:
        """Losses in nats, in fp32, from the logits of all positions."""
        return token_losses(self.select(logits), self.targets, label_smoothing)

    def per_row(self, losses: Float[Tensor, " N"]) -> tuple[Float[Tensor, " B"], Int[Tensor, " B"]]:
        """Summed losses and number of targets of each batch row."""
        rows = self.rows.to(losses.device)
        summed = losses.new_zeros(self.shape[0]).index_add(0, rows, losses)
        return summed, torch.bincount(rows, minlength=self.shape[0])


def token_losses(
    logits: Float[Tensor, "N V"], targets: Int[Tensor, " N"], label_smoothing: float = 0.0
) -> Float[Tensor, " N"]:
    """Negative log-likelihood of each target in nats, in fp32.

    Args:
        logits: One row per target.
        targets: Token ids.
        label_smoothing: Share of the target mass spread over the vocabulary.
    """
    return functional.cross_entropy(
        logits.float(), targets.to(logits.device), reduction="none", label_smoothing=label_smoothing
    )


def labelled_count(labels: Int[Tensor, "B T"]) -> int:
    """Number of labels that carry loss after the shift."""
    return int((labels[:, 1:] != IGNORED).sum())
