"""Which records a batch holds, read off the inputs of a decoder: rows padded on the right, or packed ones.

A record is known by its tokens. What is unusual: a batch whose records depend on each other, or on more than
their tokens and positions from 0, is named as such, never guessed at.

Dimensions: B rows, T tokens.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor, nn
from transformers.cache_utils import Cache

_KNOWN = ("input_ids", "attention_mask", "position_ids")


class Span(NamedTuple):
    """One record in a batch."""

    key: bytes
    """Hash of its tokens."""
    row: int
    """Row of the batch."""
    start: int
    """Its first token."""
    stop: int
    """Behind its last token."""


def token_ids(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Int[Tensor, "B T"]:
    """The tokens that a decoder is called with."""
    return args[0] if args else kwargs["input_ids"]


def find_records(decoder: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Span] | str:
    """The records of a batch, or why they cannot be told apart.

    Args:
        decoder: the module that embeds the tokens and runs the layers.
        args: its positional inputs.
        kwargs: its named ones.
    """
    if problem := _other_inputs(args, kwargs):
        return f"{type(decoder).__name__} got {problem}"
    ids, mask, positions = token_ids(args, kwargs), kwargs.get("attention_mask"), kwargs.get("position_ids")
    if mask is not None and (mask.dim() != 2 or bool((mask[:, 1:] > mask[:, :-1]).any())):
        return f"the attention mask of shape {tuple(mask.shape)} is not one of rows padded on the right"
    if mask is None and positions is not None:
        return _packed(ids, positions, _keeps_keys(decoder, kwargs))
    if positions is not None and not _counts_up(positions):
        return "position_ids do not count from 0"
    lengths = [ids.shape[1]] * ids.shape[0] if mask is None else mask.sum(1).tolist()
    on_cpu = ids.cpu()
    return [_span(on_cpu, row, 0, length) for row, length in enumerate(lengths) if length]


def _other_inputs(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str | None:
    """What the states depend on besides tokens, mask and positions; None where there is nothing."""
    if len(args) > 1 or not isinstance(args[0] if args else kwargs.get("input_ids"), Tensor):
        return f"{len(args)} positional inputs" if len(args) > 1 else "no input_ids"
    unknown = [
        name
        for name, value in kwargs.items()
        if (isinstance(value, Tensor) and name not in _KNOWN)
        or (isinstance(value, Cache) and value.get_seq_length())
    ]
    return f"also {unknown}" if unknown else None


def _keeps_keys(decoder: nn.Module, kwargs: Mapping[str, Any]) -> bool:
    """Whether the decoder makes a cache of keys and values."""
    asked = kwargs.get("use_cache")
    return bool(getattr(decoder.config, "use_cache", False) if asked is None else asked)


def _packed(ids: Int[Tensor, "B T"], positions: Int[Tensor, "rows T"], keeps_keys: bool) -> list[Span] | str:
    """The records of rows that hold several, each counted from 0."""
    on_cpu, positions = ids.cpu(), positions.cpu().expand(ids.shape[0], -1)
    spans = list[Span]()
    for row, counted in enumerate(positions):
        borders = [*(counted == 0).nonzero()[:, 0].tolist(), len(counted)]
        pairs = list(zip(borders, borders[1:], strict=False))
        if borders[0] != 0 or not all(_counts_up(counted[None, start:stop]) for start, stop in pairs):
            return "position_ids do not count from 0 in every record"
        spans += [_span(on_cpu, row, *pair) for pair in pairs]
    if keeps_keys and len(spans) > len(ids):  # transformers keeps records apart only without such a cache
        return "packed records meet use_cache=True"
    return spans


def _span(ids: Int[Tensor, "B T"], row: int, start: int, stop: int) -> Span:
    tokens = ids[row, start:stop].to(torch.int32).contiguous()
    return Span(hashlib.sha256(tokens.numpy().data).digest(), row, start, stop)


def _counts_up(positions: Int[Tensor, "rows T"]) -> bool:
    """Whether every row is 0, 1, 2, ..."""
    return bool((positions == torch.arange(positions.shape[1], device=positions.device)).all())
