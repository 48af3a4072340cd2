"""Texts -> token ids of CLIP's tokenizer, whose vocabulary open_clip brings.

Source: docs/sources/imagebind-preprocessing.md#text and
docs/sources/imagebind.md#end-of-text.

Dimensions: B texts, L tokens of each.
"""

import functools
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from llama_adapter.lazy import needed

LENGTH = 77
_START, _END, _PADDING = 49406, 49407, 0


def tokenize(texts: Sequence[str], keep_end_token: bool = True) -> Int[Tensor, "B L"]:
    """Token ids of fixed length.

    Args:
        texts: any texts.
        keep_end_token: whether texts that are too long keep their end token, which is what is read out.
    """
    encoder = _encoder()
    ids = torch.full((len(texts), LENGTH), _PADDING)
    for row, text in enumerate(texts):
        tokens = [_START, *encoder.encode(text), _END]
        if len(tokens) > LENGTH:
            tokens = [*tokens[: LENGTH - 1], _END] if keep_end_token else tokens[:LENGTH]
        ids[row, : len(tokens)] = torch.tensor(tokens)
    return ids


@functools.cache
def _encoder() -> Any:
    """open_clip's tokenizer, made once."""
    return needed("open_clip.tokenizer", "open_clip_torch", "Texts").SimpleTokenizer()
