"""What skip tokens save: tokens of the language model and work of the encoders, for pictures of given sizes.

Work is counted, not estimated: one view goes through each encoder without content, and torch counts the
operations of matrix products and convolutions. Nothing is loaded.

Dimensions: I images, V views.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from sphinx_ft.config import SphinxConfig
from sphinx_ft.encoders.base import EncoderConfig
from sphinx_ft.encoders.registry import make_encoder
from sphinx_ft.views import Size, useful_mask


@dataclass(frozen=True)
class Savings:
    """Totals over pictures, with all views and without those that are skipped."""

    images: int
    """Pictures."""
    views: int
    """Views of all."""
    encoded_views: int
    """Views that are encoded."""
    tokens: int
    """Tokens of the language model if nothing was skipped."""
    kept_tokens: int
    """Tokens of the language model."""
    flops: int
    """Operations of all encoders if nothing was skipped; a multiplication and an addition are two."""
    kept_flops: int
    """Operations of all encoders."""

    def __str__(self) -> str:
        return (
            f"{self.images} images: {self.encoded_views} of {self.views} views encoded, "
            f"{self.kept_tokens} of {self.tokens} tokens ({_less(self.tokens, self.kept_tokens)}), "
            f"{self.kept_flops / 1e9:.4g} of {self.flops / 1e9:.4g} GFLOP of the encoders "
            f"({_less(self.flops, self.kept_flops)})"
        )


def savings(config: SphinxConfig, sizes: Sequence[Size]) -> Savings:
    """What is saved for pictures of these widths and heights."""
    useful = useful_mask(sizes, config.view_config)
    encoded = config.layout.encoded(useful)
    per_view = mix_flops(config)
    return Savings(
        images=len(sizes),
        views=encoded.numel(),
        encoded_views=int(encoded.sum()),
        tokens=int(config.layout.lengths(torch.ones_like(useful)).sum()),
        kept_tokens=int(config.layout.lengths(useful).sum()),
        flops=per_view * encoded.numel(),
        kept_flops=per_view * int(encoded.sum()),
    )


def mix_flops(config: SphinxConfig) -> int:
    """Operations of all encoders for one view."""
    return sum(view_flops(one) for one in config.encoder_configs)


def view_flops(config: EncoderConfig) -> int:
    """Operations of an encoder for one view."""
    side = config.input_size or config.view_size
    with torch.device("meta"):
        encoder = make_encoder(config).eval().requires_grad_(False)
        pixels = torch.empty(1, 3, side, side)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        encoder(pixels)
    return int(counter.get_total_flops())


def _less(before: int, after: int) -> str:
    """By how much something became less."""
    return f"-{1 - after / before:.1%}" if before else "-"
