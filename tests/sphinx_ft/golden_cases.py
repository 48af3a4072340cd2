"""The models of SPHINX's goldens: settings that the files do not say, weights under our names."""

import os
from pathlib import Path

import pytest
from safetensors.torch import load_file

from sphinx_ft.encoders.base import EncoderConfig
from sphinx_ft.official_names import PREFIX
from sphinx_ft.views import ViewConfig

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
SHARED = Path(os.environ.get("LLAMA_ADAPTER_SHARED", Path(__file__).resolve().parents[3] / "shared"))
REFERENCE = SHARED / "reference" / "golden"

LARGE = ("llama_ens", "llama_ens5", "llama_ens10", "llama_ens_peft")
LIGHT = ("llama_ens_light", "llama_ens5_light")
SPARSE = ("mixtral_sparse_ens5",)
GRIDS = {"llama_ens5": 2, "llama_ens10": 3, "llama_ens5_light": 2, "mixtral_sparse_ens5": 2}
CASES = (*LARGE, *LIGHT, *SPARSE)

SETTINGS = {
    "clip": {"width": 8, "layers": 2, "heads": 2, "output_width": 6},
    "convnext": {"depths": [1, 1, 2, 1], "widths": [4, 8, 12, 24]},
    "dinov2": {"width": 12, "layers": 2, "heads": 2},
    "qformer": {
        "width": 8,
        "layers": 2,
        "heads": 2,
        "inner_width": 16,
        "image_width": 12,
        "image_layers": 2,
        "image_heads": 2,
        "image_inner_width": 24,
    },
}
"""Sizes of the tiny encoders."""


def golden(case):
    """All tensors of a golden file, of the project or beside it."""
    for folder in (GOLDEN, REFERENCE):
        if (folder / f"sphinx_{case}.safetensors").is_file():
            return load_file(folder / f"sphinx_{case}.safetensors")
    return pytest.skip(f"sphinx_{case}.safetensors is neither in {GOLDEN} nor in {REFERENCE}")


def view_config(case):
    """Square and grid of a case."""
    grid = GRIDS.get(case, 0)
    high = case in LIGHT + SPARSE
    return ViewConfig(image_size=(512 if high else 224) * max(grid, 1), rows=grid, columns=grid)


def encoder_configs(case):
    """Encoders of a case, in the order of their channels."""
    convnext = {"view_size": 512} if case in LIGHT + SPARSE else {"input_size": 256, "alignment": "repeat"}
    kinds = ("convnext", "dinov2") if case in LIGHT else ("qformer", "clip", "convnext", "dinov2")
    own = {"convnext": convnext, "qformer": {"queries": 32}}
    return [EncoderConfig(kind=kind, settings=SETTINGS[kind], **own.get(kind, {})) for kind in kinds]


def from_official(stored, tensors):
    """Our weights out of official ones, by what ``official_tensors`` says."""
    ours = {}
    for tensor in stored:
        official = tensors[PREFIX + tensor.name]
        assert tuple(official.shape) == tensor.shape, tensor.name
        for index, name in enumerate(tensor.weights):
            ours[name] = tensor.layout.turn(tensor.layout.cut(official, index)).contiguous()
    return ours
