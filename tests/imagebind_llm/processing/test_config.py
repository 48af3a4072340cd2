"""Settings of the processor in a folder."""

import json
import math

import pytest

from imagebind_llm.processing.config import DepthConfig, PointConfig, ProcessorConfig, ThermalConfig
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


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (DepthConfig, "divisor", 0),
        (DepthConfig, "std", 0.0),
        (DepthConfig, "focal_length", 0.0),
        (DepthConfig, "baseline", -1.0),
        (DepthConfig, "mean", math.nan),
        (ThermalConfig, "std", 0),
        (ThermalConfig, "lowest", 5.0),
        (PointConfig, "count", 0),
        (ProcessorConfig, "imu_rate", math.inf),
        (ProcessorConfig, "video_clips", 0),
    ],
)
def test_values_out_of_range_are_refused_when_they_are_set(kind, name, value):
    with pytest.raises(UserError, match=f"{name} of {kind.__name__} is {value!r}. Use "):
        kind(**{name: value})


def test_a_range_of_heat_has_an_extent():
    with pytest.raises(UserError, match="highest of ThermalConfig is 29000. Use more than lowest, 29000"):
        ThermalConfig(lowest=29000, highest=29000)


@pytest.mark.parametrize(
    "content",
    [
        {"depth": {"values": "feet"}},
        {"imu_rate": "200"},
        {"image_size": 1.5},
        {"resampler": "best"},
        {"depth": 3},
        [],
    ],
)
def test_a_folder_of_values_that_cannot_be(tmp_path, content):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(content))
    with pytest.raises(
        UserError, match="(?s)preprocessor_config.json' cannot be read .*Use a folder that convert"
    ):
        ImageBindProcessor.from_pretrained(tmp_path)
