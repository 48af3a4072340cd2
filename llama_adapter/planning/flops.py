"""FLOPs of any batch from those of a few: a polynomial that is exact.

Products with weights grow with the tokens of a batch, attention with rows times length squared, the output
embedding with the labelled tokens, and prompts are projected once per batch. As soon as one record of a batch
has an image, the batch holds features for all of them, and a conditioner takes the same for each; in a batch
without any image it still runs, on one empty token per row. An encoder that runs in the step takes its share
per image. So the FLOPs are ``a B T + b B T T + c N + d + e K + f R + g I``, and batches that were counted
give a to g. It knows nothing of how they were counted.

Letters: B rows, T length, N labelled tokens; K rows of batches without an image, R records (rows, or what is
packed into one) of batches with one, I images.
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
    per_blind_row: float = 0.0
    """e."""
    per_seeing_record: float = 0.0
    """f."""
    per_image: float = 0.0
    """g."""

    def of(
        self,
        *,
        padded: float,
        squares: float,
        labelled: float,
        batches: int = 1,
        blind_rows: float = 0.0,
        seeing_records: float = 0.0,
        images: float = 0.0,
    ) -> float:
        """FLOPs of so many batches with these sums of B T, B T T, N, K, R and I."""
        text = self.per_token * padded + self.per_square * squares + self.per_label * labelled
        conditioner = self.per_blind_row * blind_rows + self.per_seeing_record * seeing_records
        return text + self.per_batch * batches + conditioner + self.per_image * images


def fit_flops(
    count: Callable[[Sequence[Row]], int], length: int, sees: bool = False, image_tokens: int = 0
) -> FlopModel:
    """Finds the coefficients.

    Args:
        count: FLOPs of a batch of these rows.
        length: a typical T.
        sees: whether records have images.
        image_tokens: of a row that are those of an image.
    """
    short = max(4, length // 2, 2 + image_tokens if sees else 0)
    middle, long = short + 2, max(short + 4, length)
    # three lengths tell tokens and their squares from the rest, two rows tell rows from batches; the first
    # token of a row is never a target, rows label their last ones
    first = [Row(tokens, 1) for tokens in (short, middle, long)]
    batches = [*([row] for row in first), [Row(long, long // 2)], [first[0], first[0]]]
    if sees:
        seeing = Row(short, 1, has_image=True)
        batches += [[seeing, first[0]], [seeing, seeing]]
    unknown = numpy.array([_sums(rows) for rows in batches], float)
    if not sees:
        unknown = unknown[:, :-2]
    found = numpy.linalg.solve(unknown, [float(count(rows)) for rows in batches])
    return FlopModel(*(float(value) for value in found))


def _sums(rows: Sequence[Row]) -> list[int]:
    """B T, B T T, N, 1, K, R and I."""
    length, many = max(row.tokens for row in rows), len(rows)
    labelled, images = sum(row.labelled for row in rows), sum(row.has_image for row in rows)
    seeing = many if images else 0
    return [many * length, many * length**2, labelled, 1, many - seeing, seeing, images]
