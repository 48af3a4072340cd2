"""Published hyper-parameters as data: one table per recipe, applied to whatever was left at its default.

What is unusual: the adapters' learning rates are not in the tables. Their recipes give a base rate per 256
rows, so the rate that is used follows from the rows of one optimiser step, and those are part of the recipe
too. The tables do not know the adapter itself; its own presets (prompt length, layers, gates) belong to the
adapter's config.
"""

from typing import Any, Literal

PresetName = Literal["v1", "v1_scienceqa", "v2_pretrain", "v2", "sphinx_pretrain", "sphinx", "sphinx_x"]

ROWS_PER_RATE = 256
"""The base learning rate of the recipes is stated for this many rows per optimiser step."""

_COMMON: dict[str, Any] = {
    "schedule": "published",
    "loss_reduction": "published",
    "weight_decay_rule": "published",
    "min_learning_rate": 0.0,
    "weight_decay": 0.02,
    "adam_beta1": 0.9,
    "adam_beta2": 0.95,
    "adam_epsilon": 1e-8,
    "max_grad_norm": 0.0,
    "per_device_train_batch_size": 4,
    "dataloader_drop_last": True,
    "seed": 0,
}

_V1: dict[str, Any] = {
    **_COMMON,
    "base_learning_rate": 9e-3,
    "num_train_epochs": 5.0,
    "warmup_epochs": 2.0,
}

_SPHINX: dict[str, Any] = {
    **_COMMON,
    "learning_rate": 2e-5,
    "weight_decay": 0.0,
    "max_grad_norm": 8.0,
    "num_train_epochs": 1.0,
    "bf16": True,
}

PRESETS: dict[str, dict[str, Any]] = {
    "sphinx_pretrain": {**_SPHINX, "learning_rate": 5e-5, "min_learning_rate": 5e-6, "warmup_epochs": 0.03},
    "sphinx": {**_SPHINX, "warmup_epochs": 0.03, "types": "published"},
    "sphinx_x": {**_SPHINX, "warmup_epochs": 0.01},
    "v1": _V1,
    "v1_scienceqa": {**_V1, "per_device_train_batch_size": 8},
    "v2_pretrain": {
        **_COMMON,
        "base_learning_rate": 1e-4,
        "weight_decay": 0.05,
        "num_train_epochs": 150.0,
        "warmup_epochs": 5.0,
        "epoch_parts": 50,
    },
    "v2": {**_COMMON, "base_learning_rate": 1e-3, "num_train_epochs": 4.0, "warmup_epochs": 1.0},
}
"""``v1``: language-only LLaMA-Adapter; ``v1_scienceqa``: the same with the paper's batch for ScienceQA.
``v2_pretrain`` and ``v2``: LLaMA-Adapter V2's stages on image-text pairs and on instructions (bias, scale and
norm tuning). ``sphinx_pretrain`` and ``sphinx``: SPHINX's stages, ``sphinx_x``: the one stage of SPHINX-X;
whole models train, at the rate that is stated; mixtures of experts at a quarter of it (5e-6)."""

PRESET_ROWS: dict[str, int] = {
    "v1": 32,
    "v1_scienceqa": 64,
    "v2_pretrain": 32,
    "v2": 32,
    "sphinx_pretrain": 256,
    "sphinx": 256,
    "sphinx_x": 256,
}
"""Rows of one optimiser step, over all devices and accumulation steps, that the recipe was run with."""


def scaled_learning_rate(base_learning_rate: float, rows: int) -> float:
    """The rate used for a base rate stated per 256 rows.

    Args:
        base_learning_rate: Rate per 256 rows.
        rows: Rows of one optimiser step, over devices and accumulation.
    """
    return base_learning_rate * rows / ROWS_PER_RATE


def accumulation_for(preset: str, rows_per_pass: int) -> int:
    """Accumulation steps with which a recipe keeps its rows per step; 1 when they do not divide.

    Args:
        preset: Name of the recipe.
        rows_per_pass: Rows of one forward pass over all devices.
    """
    rows = PRESET_ROWS[preset]
    return rows // rows_per_pass if rows % rows_per_pass == 0 else 1
