"""FLOPs of any batch from those of six: a polynomial that is exact.

Products with weights grow with the tokens of a batch, attention with rows times length squared, the output
embedding with the labelled tokens, and prompts are projected once per batch. A conditioner takes the same for
every record, with an image or without: a batch holds features for all of them as soon as one has an image.
An encoder that runs in the step takes its share per image. So the FLOPs are
``a B T + b B T T + c N + d + e R + f I``, and batches that were counted give a to f. It knows nothing of how
they were counted.

Letters: B rows, T length, N labelled tokens, R records (rows, or what is packed into one), I images.
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
    per_record: float = 0.0
    """e."""
    per_image: float = 0.0
    """f."""

    def of(
        self,
        *,
        padded: float,
        squares: float,
        labelled: float,
        records: float,
        batches: int = 1,
        images: float = 0.0,
    ) -> float:
        """FLOPs of so many batches with these sums of B T, B T T, N, R and I."""
        grown = self.per_token * padded + self.per_square * squares + self.per_label * labelled
        return grown + self.per_batch * batches + self.per_record * records + self.per_image * images


def fit_flops(count: Callable[[Sequence[Row]], int], length: int, sees: bool = False) -> FlopModel:
    """Finds the coefficients.

    Args:
        count: FLOPs of a batch of these rows.
        length: a typical T.
        sees: whether records have images.
    """
    short = max(4, length // 2)
    middle, long = short + 2, max(8, length)
    # three lengths tell tokens and their squares from records, two rows tell records from batches, the last
    # batch tells images from records; the first token of a row is never a target, rows label their last ones
    first = [Row(tokens, 1, has_image=sees) for tokens in (short, middle, long)]
    batches = [
        *([row] for row in first),
        [Row(long, long // 2, has_image=sees)],
        [first[0], Row(short, 1)],
    ]
    if sees:
        batches.append([first[0], first[0]])
    unknown = numpy.array([_sums(rows) for rows in batches], float)
    if not sees:
        unknown = unknown[:, :-1]
    found = numpy.linalg.solve(unknown, [float(count(rows)) for rows in batches])
    return FlopModel(*(float(value) for value in found))


def _sums(rows: Sequence[Row]) -> list[int]:
    """B T, B T T, N, 1, R and I."""
    length, many = max(row.tokens for row in rows), len(rows)
    labelled, images = sum(row.labelled for row in rows), sum(row.has_image for row in rows)
    return [many * length, many * length**2, labelled, 1, many, images]
