"""Other rates."""

import math

import pytest
import torch

from imagebind_llm.processing.resampling import resample_sinc, resample_soxr
from tests.imagebind_llm.tiny import golden

BOTH = pytest.mark.parametrize("resample", [resample_sinc, resample_soxr])


def tone(rate, frequency=440.0):
    return torch.sin(2 * math.pi * frequency * torch.arange(rate) / rate).unsqueeze(0)


def test_the_published_filter():
    tensors = golden("imagebind_audio_fbank")
    found = resample_sinc(tensors["in/sr44100_2p5s_i16"].float() / 32768, 44100, 16000)
    torch.testing.assert_close(found[:, ::4], tensors["out/sr44100_2p5s.resampled_16k"], atol=2e-6, rtol=0)


@BOTH
@pytest.mark.parametrize("rate", [8000, 11025, 11111, 16000, 22050, 44100, 48000])
def test_a_tone_stays_that_tone(resample, rate):
    found = resample(tone(rate), rate, 16000)
    assert found.shape == (1, 16000)
    torch.testing.assert_close(found[:, 500:-500], tone(16000)[:, 500:-500], atol=5e-3, rtol=0)


@BOTH
def test_what_is_too_high_is_taken_out(resample):
    assert resample(tone(44100, 12_000.0), 44100, 16000)[:, 500:-500].abs().max() < 0.01


@BOTH
def test_channels_are_apart(resample):
    both = torch.cat([tone(8000), torch.zeros(1, 8000)])
    found = resample(both, 8000, 16000)
    assert found[1].abs().max() == 0
    torch.testing.assert_close(found[:1], resample(tone(8000), 8000, 16000))
