"""The study of drawn and spoken digits: its pieces, on small random features."""

from collections import Counter

import numpy as np
import pytest
import torch
from torch.nn import functional

pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install 'llama-adapter[demo]'")


def test_pictures_are_always_the_same_and_differ_from_each_other(example):
    digits = example("digits")
    first, again, other = (np.asarray(digits.draw(7, seed)) for seed in (3, 3, 4))
    assert first.shape == (224, 224, 3)
    assert (first == again).all()
    assert (first != other).mean() > 0.5
    assert not set(digits.FONTS) & set(digits.TEST_FONTS)


def test_questions_have_answers_and_every_question_but_naming_is_held_out_for_two_digits(example):
    digits = example("digits")
    answers = {
        question: [answer(digit) for digit in range(10)] for question, answer in digits.QUESTIONS.items()
    }
    assert answers["Which digit comes after it?"][9] == "zero"
    assert answers["Which digit comes before it?"][0] == "nine"
    assert Counter(answers["Is it even or odd?"]) == {"even": 5, "odd": 5}
    assert answers["Is it greater than four?"][4:6] == ["no", "yes"]
    for question in digits.QUESTIONS:
        held = sum(digits.held_out(question, digit) for digit in range(10))
        assert held == (0 if question == digits.NAMING else 2)


def features(space, seed, width):
    """Random features whose first values tell the digit, for forty records of each."""
    noise = torch.randn(400, width, generator=torch.Generator().manual_seed(seed))
    noise[torch.arange(400), torch.arange(400) % 10 + space] += 9
    return noise


def test_alignment_brings_sounds_to_images_of_their_digit(example):
    space = example("digit_space")
    images, sounds = features(0, 0, 40), features(12, 1, 30)
    digits = torch.arange(400) % 10
    alignment = space.start_alignment(images, sounds[:200], 24, seed=0)
    whitened = (images - alignment.image_mean) @ alignment.image_map
    torch.testing.assert_close(whitened.T @ whitened / 400, torch.eye(24), atol=1e-3, rtol=0)

    def accuracy():
        means = torch.stack([alignment.images(images)[digits == d].mean(0) for d in range(10)])
        near = alignment.sounds(sounds[200:]) @ functional.normalize(means, dim=1).T
        return (near.argmax(1) == digits[200:]).float().mean().item()

    assert accuracy() < 0.4
    by_digit = [
        {d: values[digits[: len(values)] == d] for d in range(10)} for values in (images, sounds[:200])
    ]
    losses = space.align(alignment, *by_digit, seed=0, steps=150)
    assert losses[-1] < losses[0] / 2
    assert accuracy() > 0.8


def test_an_alignment_comes_back_from_its_file(example, tmp_path):
    space = example("digit_space")
    alignment = space.start_alignment(features(0, 0, 20), features(0, 1, 12), 8, seed=0)
    alignment.save(tmp_path / "space.safetensors")
    again = space.Alignment.load(tmp_path / "space.safetensors")
    assert torch.equal(again.images(features(0, 2, 20)), alignment.images(features(0, 2, 20)))


def test_the_gap_of_vectors_that_are_known(example):
    pytest.importorskip("faiss", reason="faiss is not installed: pip install 'llama-adapter[retrieval]'")
    study = example("sound_digits")
    drawn = torch.eye(3)
    found = study.gap(drawn, [0, 1, 1], {"sound": (torch.tensor([[0.0, 0.6, 0.8]]), [1])})
    assert found["sound"] == pytest.approx({"same": 0.7, "other": 0.0, "nearest": 0.8, "centres": 0.4**0.5})
