"""All modalities in one call."""

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from imagebind_llm.processing.config import ProcessorConfig
from imagebind_llm.processing.processor import ImageBindProcessor
from llama_adapter import UserError
from tests.imagebind_llm.processing.test_video import write_video


def write_files(folder):
    """A file of every modality."""
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 255, (30, 40, 3), dtype=np.uint8)).save(folder / "a.png")
    Image.fromarray(random.integers(0, 255, (30, 40), dtype=np.uint8)).save(folder / "t.png")
    write_video(folder / "a.mp4", random.integers(0, 255, (20, 32, 32, 3), dtype=np.uint8))
    soundfile.write(folder / "a.wav", random.normal(size=32000) / 10, 16000)
    np.save(folder / "d.npy", random.random((30, 40)) + 0.1)
    np.save(folder / "i.npy", random.normal(size=(6, 2000)))
    np.save(folder / "p.npy", random.normal(size=(50, 3)))
    return {
        "vision": [folder / "a.png", folder / "a.mp4"],
        "text": ["a dog", "a car"],
        "audio": str(folder / "a.wav"),
        "depth": [folder / "d.npy"],
        "thermal": [folder / "t.png"],
        "imu": [folder / "i.npy"],
        "point": [folder / "p.npy"],
    }


def test_every_modality(tmp_path):
    found = ImageBindProcessor()(write_files(tmp_path))
    assert found["vision"].counts == (1, 15)
    assert found["vision"].values.shape == (16, 3, 2, 224, 224)
    assert torch.equal(found["vision"].values[0, :, 0], found["vision"].values[0, :, 1])
    assert found["audio"].counts == (3,)
    assert found["text"].shape == (2, 77)
    assert found["depth"].values.shape == found["thermal"].values.shape == (1, 1, 224, 224)
    assert found["imu"].values.shape == (1, 6, 2000)
    assert [cloud.shape for cloud in found["point"]] == [(50, 3)]


def test_unknown_modalities_and_nothing():
    with pytest.raises(UserError, match="Unknown modality 'smell'. Use some of .*'thermal'"):
        ImageBindProcessor()({"smell": ["a.png"]})
    with pytest.raises(UserError, match="nothing for the modality 'text'. Leave it out"):
        ImageBindProcessor()({"text": []})


def test_real_files_of_every_kind_load(shared_data):
    config = ProcessorConfig()
    files = {
        "vision": [
            shared_data / "images/imagebind/dog_image.jpg",
            shared_data / "video/4.mp4",
            shared_data / "video/2.avi",
        ],
        "audio": sorted((shared_data / "audio").glob("*/*.wav"))[:2]
        + sorted((shared_data / "audio").glob("*/*.flac"))[:1],
        "point": sorted((shared_data / "pointcloud").glob("*.npy")),
        "depth": sorted((shared_data / "depth_stereo").glob("*.np[yz]")),
    }
    found = ImageBindProcessor(config)({name: paths for name, paths in files.items() if paths})
    assert found["vision"].counts == (1, 15, 15)
    assert found["audio"].values.isfinite().all()
    for values in found["point"]:
        assert values.shape == (8192, 3)
