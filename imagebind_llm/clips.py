"""Records of several clips, side by side without padding, and the mean over the clips of each record.

Unusual: records may have different numbers of clips; an image is one clip among a video's fifteen.

Dimensions: N clips of all records, R records, E width of an embedding; ``...`` shape of one clip.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from llama_adapter.errors import UserError


@dataclass(frozen=True)
class Clips:
    """What several records of one modality hold."""

    values: Shaped[Tensor, "N ..."]
    """Clips of all records, one record after another."""
    counts: tuple[int, ...]
    """Clips of each record."""

    def __post_init__(self) -> None:
        if min(self.counts, default=1) < 1 or sum(self.counts) != len(self.values):
            raise UserError(
                f"There are {len(self.values)} clips, but the records have {list(self.counts)}. "
                "Use counts of at least 1 that add up to the number of clips."
            )

    def __len__(self) -> int:
        return len(self.counts)

    def to(self, target: Any) -> "Clips":
        """On another device, or of another type."""
        return Clips(self.values.to(target), self.counts)

    def mean(self, embeddings: Float[Tensor, "N E"]) -> Float[Tensor, "R E"]:
        """The mean over the clips of each record; not normalised again."""
        if len(self.counts) == len(self.values):
            return embeddings
        counts = torch.tensor(self.counts, device=embeddings.device)
        owner = torch.repeat_interleave(torch.arange(len(counts), device=embeddings.device), counts)
        sums = embeddings.new_zeros(len(counts), embeddings.shape[1]).index_add(0, owner, embeddings)
        return sums / counts.unsqueeze(1)


def join_records(records: list[Shaped[Tensor, "..."]]) -> Clips:
    """Records, each a tensor of its clips, in one."""
    return Clips(torch.cat(records), tuple(len(record) for record in records))
