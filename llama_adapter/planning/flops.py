"""FLOPs of any batch from those of four: a polynomial that is exact.

Products with weights grow with the tokens of a batch, attention with rows times length squared, the output
embedding with the labelled tokens, and prompts are projected once per batch. So the FLOPs of a padded
batch are ``a B T + b B T T + c N + d``, and four batches that were counted give a to d. An image adds the
same whatever the length of its record: what its conditioner and the prompts of a record of its own take, and
its encoder where images are not kept as features. It knows nothing of how they were counted.

Letters: B rows, T length, N labelled tokens.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy

from llama_adapter.planning.step import Row


@dataclass(frozen=True)
class FlopModel:
    """FLOPs of forward and backward pass."""

    per_token: float
    """a."""
    per_square: float
    """b."""
    per_label: float
    """c."""
    per_batch: float
    """d."""
    per_image: float = 0.0
    """What an image adds."""

    def of(
        self, padded: float, squares: float, labelled: float, batches: int = 1, images: float = 0.0
    ) -> float:
        """FLOPs of so many batches with these sums of B T, B T T and N, and so many images."""
        grown = self.per_token * padded + self.per_square * squares + self.per_label * labelled
        return grown + self.per_batch * batches + self.per_image * images


def fit_flops(count: Callable[[Sequence[Row]], int], length: int, sees: bool = False) -> FlopModel:
    """Finds the coefficients.

    Args:
        count: FLOPs of a batch of these rows.
        length: a typical T.
        sees: whether records can have images.
    """
    long, short = max(8, length), max(4, length // 2)
    # the first token of a row is never a target, and these rows label their last ones
    batches = [[Row(long, 1)], [Row(short, 1)], [Row(long, long // 2)], [Row(short, 1), Row(short, 1)]]
    unknown = [_sums(rows) for rows in batches]
    found = numpy.linalg.solve(numpy.array(unknown, float), [float(count(rows)) for rows in batches])
    per_image = count([Row(short, 1, has_image=True)]) - count([Row(short, 1)]) if sees else 0.0
    per_token, per_square, per_label, per_batch = (float(value) for value in found)
    return FlopModel(per_token, per_square, per_label, per_batch, float(per_image))


def _sums(rows: Sequence[Row]) -> list[int]:
    """B T, B T T, N and 1."""
    length = max(row.tokens for row in rows)
    return [len(rows) * length, len(rows) * length**2, sum(row.labelled for row in rows), 1]
