"""Small runs with images: pictures, records with and without them, configs."""

import json
from dataclasses import replace

from llama_adapter import ZeroInitConfig
from llama_adapter.conditioning import GlobalFeaturesConfig, VisualQueriesConfig
from llama_adapter.data import DataConfig, SourceConfig
from llama_adapter.models import BaseModelConfig
from llama_adapter.training import TrainConfig, TrainingConfig
from llama_adapter.training.groups import GroupConfig
from tests.vision.tiny_encoders import config_of, draw

CONDITIONERS = {
    "visual_queries": (
        VisualQueriesConfig(width=8, depth=1, num_heads=2, mlp_width=16),
        {"projection": True},
    ),
    "global_features": (GlobalFeaturesConfig(inner_width=4), {"output": "global", "levels": [0, -1]}),
}
"""Settings of a conditioner, sizes left out, and of the encoder for it."""


def write_records(folder, count=12, every=3, sighted=None):
    """Records in LLaVA's layout; all but one of ``every`` have a picture, or those that are named."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = draw(folder / "pictures", count)
    records, mark = [], "<image>\n"
    for number in range(count):
        sees = bool(number % every) if sighted is None else number in sighted
        turns = [
            {"from": "human", "value": f"{mark if sees else ''}What is {number % 10}?"},
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


DDP_RUNS = {
    "cached": {},
    "live": {"data": {"images": "live"}},
    "global_features": {"kind": "global_features"},
    "packed": {"batching": "packed", "tokens_per_batch": 300},
    "joint": {"groups": True},
    "text": {"every": 1},
}
"""Runs of the two-process test; few records have a picture, so that one rank often has none."""


def ddp_config(root, base_dir, name, folder, ranks):
    """One of ``DDP_RUNS``, with a step of the same records whatever the number of ranks."""
    options = dict(DDP_RUNS[name])
    own, every, joint = root / name, options.pop("every", None), options.pop("groups", False)
    if not (own / "items.json").exists():
        write_records(own, 16, **({"every": every} if every else {"sighted": (1, 6, 11, 12)}))
    data = {
        "evaluation": [],
        "train": [SourceConfig(path=str(own / "items.json"))],
        **options.pop("data", {}),
    }
    planned = joint or "batching" in options
    batch = {"per_device_train_batch_size": 2 if planned or ranks == 2 else 4}
    made = image_config(
        own,
        base_dir,
        data=data,
        output_dir=str(own / folder),
        max_steps=6,
        save_strategy="no",
        gradient_accumulation_steps=2 // ranks if planned else 1,
        **batch,
        **options,
    )
    groups = [
        GroupConfig(parts=["prompt", "gate", "conditioner"], records="images"),
        GroupConfig(parts=["norm"], records="text"),
    ]
    if not joint:
        return made
    adapter = ZeroInitConfig(prompt_length=3, gate_init_std=0.5, norms=True)
    return replace(made, groups=groups, adapter=adapter)
