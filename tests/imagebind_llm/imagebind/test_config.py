"""Settings of the model."""

import json

import pytest
import torch

from imagebind_llm.imagebind.config import IMAGEBIND_MODALITIES, TOWER_CONFIGS, ImageBindConfig
from imagebind_llm.imagebind.model import ImageBindModel
from llama_adapter import UserError
from tests.imagebind_llm.tiny import tiny_config


def test_the_published_sizes():
    config = ImageBindConfig()
    assert tuple(config.active) == IMAGEBIND_MODALITIES
    with torch.device("meta"):
        model = ImageBindModel(config)
    assert TOWER_CONFIGS["audio"]().grid == (12, 19)
    assert model.towers["imu"].stem.position.shape == (1, 251, 512)


def test_settings_survive_json(tmp_path):
    config = tiny_config("vision", "point")
    config.save_pretrained(tmp_path)
    assert ImageBindConfig.from_pretrained(tmp_path).active == config.active
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "imagebind"


def test_wrong_settings():
    with pytest.raises(UserError, match="Unknown modality 'smell'. Use some of"):
        ImageBindConfig(towers={"smell": {}})
    with pytest.raises(UserError, match=r"text tower has no settings \['depth'\]. Use some of"):
        ImageBindConfig(towers={"text": {"depth": 3}})
    with pytest.raises(UserError, match="'audio', which this model does not have. Use some of"):
        ImageBindModel(tiny_config("text", modalities=["audio"]))
    with pytest.raises(UserError, match="hidden_size 8 is no multiple of num_heads 3. Use"):
        ImageBindConfig(towers={"text": {"hidden_size": 8, "num_heads": 3}})
