"""Spectrograms against the original's, and files that are no sound."""

import numpy as np
import pytest
import soundfile
import torch

from imagebind_llm.processing.audio import RATE, audio_input, load_audio, log_mel
from imagebind_llm.processing.config import ProcessorConfig
from llama_adapter import UserError
from tests.imagebind_llm.tiny import golden

CONFIG = ProcessorConfig()
EVERY = 4
"""Which points in time the goldens hold: the first, the fifth, ..."""


def samples(tensors, name):
    return tensors[f"in/{name}_i16"].float() / 32768


def check(found, wanted):
    """Log-mel values agree but for a few, where the original's single precision shows."""
    error = (found[..., ::EVERY] - wanted).abs() * 9.138
    assert error.max() < 4e-3
    assert (error > 1e-3).double().mean() < 5e-4
    assert error.mean() < 5e-5


def test_log_mel_is_the_originals():
    tensors = golden("imagebind_audio_fbank")
    wave = samples(tensors, "wave_2s_16k")
    found = log_mel((wave[0] - wave.mean()).numpy())
    np.testing.assert_allclose(found.T[::EVERY], tensors["out/fbank_raw"].numpy(), atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", ["mono_7s", "stereo_3s", "short_1p2s"])
def test_what_the_tower_takes_is_the_originals(name):
    tensors = golden("imagebind_audio_fbank")
    check(audio_input(samples(tensors, name), CONFIG), tensors[f"out/{name}.audio_input"])


def test_clips_with_samples_of_their_own():
    tensors = golden("imagebind_audio_fbank")
    wave = samples(tensors, "stereo_3s")
    apart = audio_input(wave, ProcessorConfig(shared_samples=False))
    first = audio_input(wave[:, : 2 * RATE], CONFIG)
    torch.testing.assert_close(apart[0], first[0])
    assert 0.8 < (apart - audio_input(wave, CONFIG)).abs().max() < 0.83  # the difference that was measured


def test_another_rate_is_the_originals(tmp_path):
    tensors = golden("imagebind_audio_fbank")
    soundfile.write(tmp_path / "a.wav", tensors["in/sr44100_2p5s_i16"][0].numpy(), 44100, subtype="PCM_16")
    wanted = tensors["out/sr44100_2p5s.audio_input"]
    check(load_audio(tmp_path / "a.wav", CONFIG), wanted)
    other = load_audio(tmp_path / "a.wav", ProcessorConfig(resampler="soxr"))
    assert (other[..., ::EVERY] - wanted).abs().mean() < 0.01


def test_the_given_samples_are_left_alone():
    wave = torch.full((1, RATE), 0.5)
    audio_input(wave, CONFIG)
    assert (wave == 0.5).all()


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3", "ogg"])
def test_file_types(tmp_path, suffix):
    time = np.arange(3 * 22050) / 22050
    soundfile.write(tmp_path / f"a.{suffix}", 0.3 * np.sin(2 * np.pi * 440 * time), 22050)
    found = load_audio(tmp_path / f"a.{suffix}", CONFIG)
    assert found.shape == (3, 1, 128, 204)
    assert found.isfinite().all()


def test_files_that_are_no_sound(tmp_path):
    soundfile.write(tmp_path / "silent.wav", np.zeros(RATE), RATE)
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), RATE)
    soundfile.write(tmp_path / "click.wav", np.ones(100), RATE)
    soundfile.write(tmp_path / "nan.wav", np.full(RATE, np.nan), RATE, subtype="FLOAT")
    (tmp_path / "text.wav").write_text("no sound")
    for name, message in [
        ("silent", "silent.wav' is silent from start to end. Use"),
        ("empty", "empty.wav' has 0.000 s of sound. Use at least 0.025 s"),
        ("click", "click.wav' has 0.006 s"),
        ("nan", "nan.wav' holds NaN"),
        ("text", "text.wav' cannot be read as sound: .*Use .wav"),
        ("nowhere", "nowhere.wav' cannot be read as sound: .*Use .wav"),
    ]:
        with pytest.raises(UserError, match=message):
            load_audio(tmp_path / f"{name}.wav", CONFIG)


def test_a_silent_channel_is_no_silence(tmp_path):
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(3 * RATE) / RATE)
    silence = np.zeros_like(tone)
    noise = np.random.default_rng(0).normal(size=len(tone)) * 1e-5
    for name, channels in [("right", [tone, silence]), ("left", [silence, tone]), ("hum", [noise, tone])]:
        soundfile.write(tmp_path / f"{name}.wav", np.stack(channels, 1), RATE, subtype="FLOAT")
    wanted = load_audio(tmp_path / "right.wav", CONFIG)
    torch.testing.assert_close(load_audio(tmp_path / "left.wav", CONFIG), wanted)
    torch.testing.assert_close(load_audio(tmp_path / "hum.wav", CONFIG), wanted, atol=1e-3, rtol=1e-3)
    soundfile.write(tmp_path / "levels.wav", np.stack([silence, silence + 0.1], 1), RATE)
    with pytest.raises(UserError, match="levels.wav' is silent from start to end. Use"):
        load_audio(tmp_path / "levels.wav", CONFIG)


def test_rates_and_samples_that_no_sound_has(tmp_path):
    tone = np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
    soundfile.write(tmp_path / "slow.wav", tone, 3)
    soundfile.write(tmp_path / "fast.wav", tone, 2_000_000_000)
    soundfile.write(tmp_path / "loud.wav", tone * 32767, RATE, subtype="FLOAT")
    for name, message in [
        ("slow", "slow.wav' says that it has 3 samples per second. Use 1,000 to 1,000,000"),
        ("fast", "fast.wav' says that it has 2,000,000,000 samples per second. Use"),
        ("loud", "loud.wav' holds samples up to 327.*; those of sounds lie within -1 and 1. Divide"),
    ]:
        with pytest.raises(UserError, match=message):
            load_audio(tmp_path / f"{name}.wav", CONFIG)
