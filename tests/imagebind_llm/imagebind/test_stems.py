"""From values to tokens."""

import pytest
import torch

from imagebind_llm.imagebind.config import ImuTowerConfig
from imagebind_llm.imagebind.stems import ImuStem, PatchStem
from llama_adapter import UserError
from tests.imagebind_llm.imagebind.test_golden import golden_model
from tests.imagebind_llm.imagebind.test_model import tiny_model
from tests.imagebind_llm.tiny import golden


def test_positions_are_stretched_as_in_the_original():
    stem = golden_model("vision").towers["vision"].stem
    assert isinstance(stem, PatchStem)
    wanted = golden("imagebind_vision")["mid/vision_280.pos_embed"]
    torch.testing.assert_close(stem._positions(20, 20), wanted, atol=1e-6, rtol=0)


def test_texts_of_another_length():
    with pytest.raises(UserError, match="Texts have 5 tokens. Use 77"):
        tiny_model("text")({"text": torch.zeros(1, 5, dtype=torch.long)})


def test_a_table_of_the_right_size_is_not_touched():
    stem = golden_model("depth").towers["depth"].stem
    assert stem._positions(14, 14) is stem.position


def test_windows_hold_one_channel_after_another():
    stem = ImuStem(ImuTowerConfig(hidden_size=48, num_heads=1))
    with torch.no_grad():
        stem.projection.weight.copy_(torch.eye(48))
    stem.norm = torch.nn.Identity()
    values = torch.randn(1, 6, 2000)
    with torch.no_grad():
        tokens = stem(values)
    torch.testing.assert_close(tokens[0, 3], values[0, :, 16:24].flatten())
