"""Settings of the processor in a folder."""

import json

import pytest

from imagebind_llm.processing.config import DepthConfig, ProcessorConfig
from imagebind_llm.processing.processor import ImageBindProcessor
from llama_adapter import UserError


def test_settings_survive_a_folder(tmp_path):
    config = ProcessorConfig(
        audio_clips=2, keep_end_token=False, depth=DepthConfig(values="metres", focal_length=5.0)
    )
    ImageBindProcessor(config).save_pretrained(tmp_path / "new")
    assert ImageBindProcessor.from_pretrained(tmp_path / "new").config == config


def test_damaged_settings(tmp_path):
    with pytest.raises(UserError, match="preprocessor_config.json' cannot be read .*Use a folder"):
        ImageBindProcessor.from_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"smell": 3}))
    with pytest.raises(UserError, match="preprocessor_config.json' cannot be read .*smell"):
        ImageBindProcessor.from_pretrained(tmp_path)
