"""Spectrograms against the original's, and files that are no sound."""

import numpy as np
import pytest
import soundfile
import torch

from imagebind_llm.processing.audio import RATE, audio_input, load_audio, log_mel, resample
from imagebind_llm.processing.config import ProcessorConfig
from llama_adapter import UserError
from tests.imagebind_llm.tiny import golden

CONFIG = ProcessorConfig()


def samples(tensors, name):
    return tensors[f"in/{name}_i16"].numpy().astype(np.float32) / 32768


def test_log_mel_is_the_originals():
    tensors = golden("imagebind_audio_fbank")
    wave = samples(tensors, "wave_2s_16k")
    found = log_mel(wave[0] - wave.mean())
    np.testing.assert_allclose(found.T, tensors["out/fbank_raw"].numpy(), atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", ["mono_7s", "stereo_3s", "short_1p2s"])
def test_what_the_tower_takes_is_the_originals(name):
    tensors = golden("imagebind_audio_fbank")
    found = audio_input(samples(tensors, name), CONFIG)
    torch.testing.assert_close(found, tensors[f"out/{name}.audio_input"], atol=1e-3 / 9.138, rtol=0)


def test_clips_with_samples_of_their_own():
    tensors = golden("imagebind_audio_fbank")
    wave = samples(tensors, "stereo_3s")
    apart = audio_input(wave, ProcessorConfig(shared_samples=False))
    first = audio_input(wave[:, : 2 * RATE], CONFIG)
    torch.testing.assert_close(apart[0], first[0])
    assert 0.8 < (apart - audio_input(wave, CONFIG)).abs().max() < 0.83  # the difference that was measured


def test_another_rate_is_near_the_original():
    tensors = golden("imagebind_audio_fbank")
    found = resample(samples(tensors, "sr44100_2p5s"), 44100)
    wanted = tensors["out/sr44100_2p5s.resampled_16k"].numpy()
    assert found.shape == wanted.shape
    error = np.sqrt(np.mean((found - wanted) ** 2) / np.mean(wanted**2))
    assert error < 0.02


def test_the_given_samples_are_left_alone():
    wave = np.full((1, RATE), 0.5, dtype=np.float32)
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
