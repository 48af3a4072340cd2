"""Samples at another rate, by the windowed sinc of the published pipeline, or by soxr.

Unusual: each phase has a product of its own. So rates without a common divisor (11,111 and 16,000 per second)
take no more memory than others; the filters of one convolution would fill gigabytes. The published filter
(torchaudio's default) is short and lets a little pass above its cut-off; soxr's is steeper. The highest mel
bands differ most.
Source: docs/sources/imagebind-preprocessing.md#audio.

Dimensions: C channels, N samples, P phases, K width of the filters.
"""

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from llama_adapter.lazy import needed

_CROSSINGS = 6
"""Zeros of the sinc on each side, where its window ends."""
_ROLLOFF = 0.99
"""Cut-off, as a share of the lower of the two halved rates."""


def resample_sinc(samples: Float[Tensor, "C N"], rate: int, wanted: int) -> Float[Tensor, "C _"]:
    """Samples at ``wanted`` per second, as the published pipeline makes them."""
    divisor = math.gcd(rate, wanted)
    step, phases = rate // divisor, wanted // divisor
    if step == phases:
        return samples
    filters, places, margin = _filters(step, phases)
    length = math.ceil(phases * samples.shape[1] / step)
    padded = functional.pad(samples, (margin, margin + step))
    found = samples.new_zeros(len(samples), phases, math.ceil(length / phases))
    for phase in range(min(phases, length)):
        windows = padded[:, int(places[phase]) :].unfold(1, filters.shape[1], step)
        found[:, phase] = (windows @ filters[phase])[:, : found.shape[2]]
    return found.transpose(1, 2).flatten(1)[:, :length]


def resample_soxr(samples: Float[Tensor, "C N"], rate: int, wanted: int) -> Float[Tensor, "C _"]:
    """Samples at ``wanted`` per second, by soxr's high quality."""
    if rate == wanted:
        return samples
    soxr: Any = needed("soxr", "soxr", "Sounds resampled by soxr", "audio")
    found: np.ndarray = soxr.resample(samples.T.contiguous().numpy(), rate, wanted)
    return torch.from_numpy(np.ascontiguousarray(found.T))


def _filters(step: int, phases: int) -> tuple[Float[Tensor, "P K"], Int[Tensor, " P"], int]:
    """A filter for each phase of the output, where it begins, and the samples that are needed on either side.

    Args:
        step: input samples of a period.
        phases: output samples of a period.
    """
    cutoff = min(step, phases) * _ROLLOFF
    margin = math.ceil(_CROSSINGS * step / cutoff) + 1
    outputs = torch.arange(phases)
    places = outputs * step // phases
    inputs = (places.unsqueeze(1) + torch.arange(-margin, margin + 1)).double() / step
    exact = (outputs / phases).unsqueeze(1)  # in single precision, as the published filters
    time = ((inputs - exact) * cutoff).clamp(-_CROSSINGS, _CROSSINGS)
    window = torch.cos(time * math.pi / (2 * _CROSSINGS)).square()
    filters = (torch.sinc(time) * window * cutoff / step).float()
    return filters, places, margin
