"""Small runs with images: pictures, records with and without them, configs."""

import json

from llama_adapter import ZeroInitConfig
from llama_adapter.conditioning import GlobalFeaturesConfig, VisualQueriesConfig
from llama_adapter.data import DataConfig, SourceConfig
from llama_adapter.models import BaseModelConfig
from llama_adapter.training import TrainConfig, TrainingConfig
from tests.vision.tiny_encoders import config_of, draw

CONDITIONERS = {
    "visual_queries": (
        VisualQueriesConfig(width=8, depth=1, num_heads=2, mlp_width=16),
        {"projection": True},
    ),
    "global_features": (GlobalFeaturesConfig(inner_width=4), {"output": "global", "levels": [0, -1]}),
}
"""Settings of a conditioner, sizes left out, and of the encoder for it."""


def write_records(folder, count=12, every=3):
    """Records in LLaVA's layout; all but one of ``every`` have a picture."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = draw(folder / "pictures", count)
    records = []
    for number in range(count):
        sees = bool(number % every)
        turns = [
            {"from": "human", "value": f"{'<image>' if sees else ''}\nWhat is {number}?"},
            {"from": "gpt", "value": "yes " * (number % 4 + 1)},
        ]
        records.append({"conversations": turns} | ({"image": paths[number]} if sees else {}))
    path = folder / "items.json"
    path.write_text(json.dumps(records))
    return path


def image_config(root, base_dir, kind="visual_queries", data=None, adapter=None, **settings):
    """A run on ``write_records``; ``data`` changes its data, the rest its training."""
    conditioner, vision = CONDITIONERS[kind]
    path = root / "items.json"
    if not path.exists():
        write_records(root)
    defaults = {
        "output_dir": str(root / "run"),
        "max_steps": 4,
        "per_device_train_batch_size": 2,
        "learning_rate": 1e-2,
        "logging_steps": 1.0,
        "save_steps": 2.0,
        "disable_tqdm": True,
        "use_cpu": True,
    }
    sources = {
        "train": [SourceConfig(path=str(path), rows="0:9")],
        "evaluation": [SourceConfig(path=str(path), rows="9:")],
        "template": "alpaca",
        "cache_dir": str(root / "cache"),
    }
    return TrainConfig(
        base=BaseModelConfig(name_or_path=str(base_dir)),
        adapter=adapter or ZeroInitConfig(prompt_length=3, prompt_layers=1, gate_init_std=0.5),
        vision=config_of("clip", root, **vision),
        conditioner=conditioner,
        data=DataConfig(**{**sources, **(data or {})}),
        training=TrainingConfig(**{**defaults, **settings}),
    )
