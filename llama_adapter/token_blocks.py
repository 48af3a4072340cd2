"""Tokens of packed rows, sorted by record into blocks of one size, and back.

A packed row holds several records. What a token does with its own record alone, such as attending to that
record's prompts, is one dense operation once tokens stand in blocks that each belong to one record: no mask,
no work on other records' keys, and at most one part-filled block per record whatever the lengths are. (A
mask over the prompts of all records costs R times the arithmetic: measured on one CPU core with 32 records
in 4 rows of 1024 tokens, it took 2.8 times as long forward and 2.7 times backward.)

Where the tokens go depends on the record index alone, so it is computed once per pass, for all layers. The
number of blocks is a Python number: an index on a GPU costs one synchronisation, one on the CPU none.

Dimensions: B rows, T tokens per row, M = B * T, R records, N blocks, S block size, L = N * S, Q heads, D head
size.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from llama_adapter.errors import UserError

BLOCK_SIZE = 64
"""Tokens per block; measured alike from 32 to 128."""


@dataclass(frozen=True, eq=False)
class TokenBlocks:
    """Where each token of a packed batch goes, and where each place of a block comes from."""

    shape: tuple[int, int]
    """B and T of the batch."""
    place_of_token: Int[Tensor, " M"]
    """Place of each token among the N * S of all blocks."""
    token_of_place: Int[Tensor, " L"]
    """Token at each place; places that no token takes repeat token 0 and are not read back."""
    record_of_block: Int[Tensor, " N"]
    """Record that each block belongs to."""

    @classmethod
    def of(
        cls, record_index: Int[Tensor, "B T"], records: int, device: torch.device, size: int = BLOCK_SIZE
    ) -> "TokenBlocks":
        """Sort the tokens of a batch.

        Args:
            record_index: record of each token, from 0 to R - 1.
            records: R.
            device: where the layers run.
            size: S.

        Raises:
            UserError: the index names other records.
        """
        record = record_index.detach().cpu().long().flatten()
        if record.numel() and not 0 <= int(record.min()) <= int(record.max()) < records:
            raise UserError(
                f"record_index goes from {int(record.min())} to {int(record.max())}, with {records} "
                f"conditions. Use numbers from 0 to {records - 1}, and -1 for tokens of no record."
            )
        lengths = torch.bincount(record, minlength=records)
        blocks = (lengths + size - 1) // size
        order = torch.argsort(record, stable=True)
        rank = torch.empty_like(record)  # of each token within its record
        rank[order] = torch.arange(len(record)) - (lengths.cumsum(0) - lengths)[record[order]]
        place = (blocks.cumsum(0) - blocks)[record] * size + rank
        token = torch.zeros(int(blocks.sum()) * size, dtype=torch.long)
        token[place] = torch.arange(len(record))
        owner = torch.repeat_interleave(torch.arange(records), blocks)
        rows, length = record_index.shape
        return cls((rows, length), place.to(device), token.to(device), owner.to(device))

    def split(self, query: Float[Tensor, "B Q T D"]) -> Float[Tensor, "N Q S D"]:
        """Queries of packed rows, by block.

        Raises:
            UserError: the rows are not those of the index.
        """
        rows, heads, length, size = query.shape
        if (rows, length) != self.shape:
            raise UserError(
                f"record_index has the shape {self.shape}, the pass {(rows, length)}. Use it for passes over "
                f"whole packed rows; a generation takes one record per row and no record_index."
            )
        tokens = query.transpose(1, 2).reshape(rows * length, heads, size)
        blocks = tokens.index_select(0, self.token_of_place)
        return blocks.view(len(self.record_of_block), -1, heads, size).transpose(1, 2)

    def join(self, blocks: Float[Tensor, "N Q S D"]) -> Float[Tensor, "B T Q D"]:
        """What came of each block, by row."""
        places = blocks.transpose(1, 2).reshape(-1, blocks.shape[1], blocks.shape[3])
        return places.index_select(0, self.place_of_token).view(*self.shape, *places.shape[1:])
