"""A tiny ImageBind in a folder, files of some modalities, and the two stages of training on them."""

import math
import struct
import wave

import numpy as np
import torch

from imagebind_llm.bind import BindConfig
from imagebind_llm.imagebind.model import ImageBindModel
from imagebind_llm.processing.processor import ImageBindProcessor
from llama_adapter import ZeroInitConfig
from llama_adapter.data import DataConfig, SourceConfig
from llama_adapter.models import BaseModelConfig
from llama_adapter.training import TrainConfig, TrainingConfig
from llama_adapter.training.groups import GroupConfig
from llama_adapter.vision import VisionConfig
from tests.imagebind_llm.tiny import tiny_config
from tests.training.image_runs import write_records

FIRST = [GroupConfig(parts=["prompt", "gate", "conditioner"])]
SECOND = [GroupConfig(parts=["norm", "bias", "lora"])]


def make_imagebind(folder, seed=0):
    """Every tower, with random weights."""
    torch.manual_seed(seed)
    ImageBindModel(tiny_config()).save_pretrained(folder)
    ImageBindProcessor().save_pretrained(folder)
    return folder


def write_sound(path, frequency=440.0, seconds=2):
    """A tone."""
    samples = (int(20000 * math.sin(2 * math.pi * frequency * n / 16000)) for n in range(16000 * seconds))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(b"".join(struct.pack("<h", sample) for sample in samples))
    return str(path)


def write_points(path):
    """A cloud of 300 points."""
    np.save(path, np.random.default_rng(0).normal(size=(300, 3)).astype("float32"))
    return str(path)


def stage(root, base_dir, imagebind, groups, start=None, **training):
    """One of the stages."""
    if not (root / "items.json").exists():
        write_records(root)
    first = {"prompt_length": 1}
    second = {
        "preset": "imagebind",
        "deltas": [{"kind": "bias", "exclude": ["k_proj", "v_proj"]}, {"kind": "lora", "rank": 2}],
    }
    return TrainConfig(
        base=BaseModelConfig(name_or_path=str(base_dir)),
        adapter=ZeroInitConfig(**(first if start is None else second)),
        vision=VisionConfig(kind="imagebind", name_or_path=str(imagebind)),
        conditioner=BindConfig(inner_width=8),
        start_from=start,
        groups=groups,
        data=DataConfig(
            train=[SourceConfig(path=str(root / "items.json"))],
            template="alpaca",
            cache_dir=str(root / "cache"),
            feature_cache=str(root / "features"),
        ),
        training=TrainingConfig(
            **{
                "output_dir": str(root / ("first" if start is None else "second")),
                "max_steps": 4,
                "per_device_train_batch_size": 3,
                "learning_rate": 2e-2,
                "logging_steps": 1.0,
                "save_strategy": "no",
                "disable_tqdm": True,
                "use_cpu": True,
                **training,
            }
        ),
    )
