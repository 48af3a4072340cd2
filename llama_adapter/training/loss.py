"""Cross-entropy over labelled positions only.

The label of position t is scored by the logits of position t - 1, so a row's first label never counts. What
is unusual: the logits of unlabelled positions are not computed. The hidden states are narrowed to the
labelled positions on their way into the output embedding (a forward pre-hook), so whatever the model does to
logits afterwards (soft cap, scaling) still happens. Where that cannot be done (torch.compile, no output
embedding) the labelled rows of the full logits are taken instead.

Letters: B rows of the batch, T tokens, N labelled positions, H hidden size, V vocabulary.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
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
        predicting = torch.full_like(labels, IGNORED)
        predicting[:, :-1] = labels[:, 1:]
        self.mask: Bool[Tensor, "B T"] = predicting != IGNORED
        """True where the next token is labelled."""
        self.targets: Int[Tensor, " N"] = predicting[self.mask]
        """The tokens to predict, row by row."""
        self.rows: Int[Tensor, " N"] = self.mask.nonzero()[:, 0]
        """The batch row of each target."""

    @contextmanager
    def narrowed(self, head: nn.Module | None) -> Iterator[None]:
        """While active, ``head`` sees the labelled positions only, as one row of N.

        Args:
            head: The module from hidden states to logits; None leaves everything as it is.
        """
        self._applied = False
        if head is None:
            yield
            return

        def narrow(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
            if not inputs or inputs[0].shape[:-1] != self.mask.shape:
                return None
            self._applied = True
            return (inputs[0][self.mask].unsqueeze(0), *inputs[1:])

        handle = head.register_forward_pre_hook(narrow)
        try:
            yield
        finally:
            handle.remove()

    def losses(
        self, logits: Float[Tensor, "batch positions V"], label_smoothing: float = 0.0
    ) -> Float[Tensor, " N"]:
        """Negative log-likelihood of each target in nats, in fp32.

        Args:
            logits: What the model returned: all positions, or the labelled ones after :meth:`narrowed`.
            label_smoothing: Share of the target mass spread over the vocabulary.
        """
        labelled = logits[0] if self._applied else logits[self.mask]
        return functional.cross_entropy(
            labelled.float(), self.targets, reduction="none", label_smoothing=label_smoothing
        )

    def per_row(self, losses: Float[Tensor, " N"]) -> tuple[Float[Tensor, " B"], Int[Tensor, " B"]]:
        """Summed losses and number of targets of each batch row."""
        summed = losses.new_zeros(self.mask.shape[0]).index_add(0, self.rows, losses)
        return summed, self.mask.sum(dim=1)


def labelled_count(labels: Int[Tensor, "B T"]) -> int:
    """Number of labels that carry loss after the shift."""
    return int((labels[:, 1:] != IGNORED).sum())
