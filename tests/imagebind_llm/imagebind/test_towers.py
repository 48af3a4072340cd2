"""Heads and scales."""

import math

import torch

from imagebind_llm.imagebind.config import ImuTowerConfig, TextTowerConfig
from imagebind_llm.imagebind.towers import make_tower
from tests.imagebind_llm.imagebind.test_model import tiny_model


def test_scales():
    tower = make_tower(ImuTowerConfig(hidden_size=8, num_heads=2, num_layers=1), 16)
    features = torch.randn(3, 16)
    torch.testing.assert_close(tower.embed(features).norm(dim=1), torch.full((3,), 5.0))
    tower.log_scale.fill_(math.log(1000))
    torch.testing.assert_close(tower.embed(features).norm(dim=1), torch.full((3,), 100.0))


def test_only_the_scale_of_texts_is_trained():
    text = make_tower(TextTowerConfig(hidden_size=8, num_heads=2, num_layers=1), 16)
    assert isinstance(text.log_scale, torch.nn.Parameter)
    imu = make_tower(ImuTowerConfig(hidden_size=8, num_heads=2, num_layers=1), 16)
    assert "log_scale" in dict(imu.named_buffers())


def test_what_stands_behind_the_end_of_a_text_does_not_matter():
    tower = tiny_model("text").towers["text"]
    ids = torch.randint(1, 49406, (1, 77))
    ids[0, 10] = 49407
    other = ids.clone()
    other[0, 11:] = 0
    with torch.no_grad():
        torch.testing.assert_close(tower(ids), tower(other))
