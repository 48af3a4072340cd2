"""The model of the goldens: official names and values, and the settings that these do not say."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from imagebind_llm.imagebind.config import IMAGEBIND_MODALITIES, ImageBindConfig

GOLDEN = Path(__file__).resolve().parent.parent / "golden"

IMAGEBIND = IMAGEBIND_MODALITIES

TOWERS = {
    "vision": {"hidden_size": 32, "num_layers": 2, "num_heads": 4},
    "text": {"hidden_size": 8, "num_layers": 2, "num_heads": 2},
    "audio": {"hidden_size": 24, "num_layers": 2, "num_heads": 3},
    "depth": {"hidden_size": 24, "num_layers": 2, "num_heads": 4},
    "thermal": {"hidden_size": 32, "num_layers": 2, "num_heads": 4},
    "imu": {"hidden_size": 16, "num_layers": 2, "num_heads": 2},
    "point": {
        "hidden_size": 32,
        "num_layers": 3,
        "num_heads": 4,
        "groups": 24,
        "group_size": 8,
        "group_width": 40,
        "output_width": 48,
    },
}
FILES = {
    "vision": "imagebind_vision",
    "text": "imagebind_text",
    "audio": "imagebind_audio",
    "depth": "imagebind_depth_thermal_imu",
    "thermal": "imagebind_depth_thermal_imu",
    "imu": "imagebind_depth_thermal_imu",
    "point": "imagebind_point",
}


ROWS = {"modality_preprocessors.text.token_embedding.weight": 49408}
"""Sizes of the tables of which goldens hold a part."""


def golden(name):
    """All tensors of a golden file; of a large table it has the rows that are looked up, the others are 0."""
    tensors = load_file(GOLDEN / f"{name}.safetensors")
    for key in [key for key in tensors if key.startswith("rows/")]:
        table = key.removeprefix("rows/")
        rows, values = tensors.pop(key), tensors.pop(f"values/{table}")
        tensors[table] = torch.zeros(ROWS[table], values.shape[1])
        tensors[table][rows] = values
    return tensors


def golden_llm(case):
    """All tensors of an ImageBind-LLM; the legacy golden is a bind network, its LLaMA that of the other."""
    return golden("imagebind_llm") | golden(case)


def is_weight(name):
    """Whether a tensor of a golden file belongs to the model."""
    return not name.startswith(("in/", "mid/", "out/"))


def official_weights(*modalities):
    """The state dict of a golden model, under its official names."""
    weights = {
        name: tensor
        for file in dict.fromkeys(FILES[modality] for modality in modalities)
        for name, tensor in golden(file).items()
        if is_weight(name)
        and any(f"{modality}." in name or f"{modality}_" in name for modality in modalities)
    }
    if "point" in modalities:
        weights["modality_postprocessors.point.1.log_logit_scale"] = torch.tensor(0.0)
    return weights


def tiny_config(*modalities, **changes):
    """The settings of a golden model."""
    towers = {name: dict(TOWERS[name]) for name in modalities or TOWERS}
    return ImageBindConfig(embedding_size=16, towers=towers, **changes)


def values(tensor):
    """An input as the model takes it; whole numbers stand for 32ths."""
    return tensor if tensor.dtype == torch.int64 else tensor.float() / 32
