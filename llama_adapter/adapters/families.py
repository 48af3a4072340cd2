"""The model types that the tests run, and the parts that each has no place for.

The adapters read a model's build off its modules (``structure.py``), so a new model of a familiar build needs
no entry here; it works at the user's risk, and a warning says so. The support matrix in the docs is printed
from this table.
"""

import warnings
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from llama_adapter.errors import UserError

NO_INTERFACE = "its attention does not call transformers' attention interface"
EXPERTS_3D = "its experts are 3-D parameters, not linear modules"
ALIBI = "its positions (ALiBi) are counted along the whole row, over the borders of records"
NO_K_PROJ = "its layers have no k_proj and v_proj, which the V2 presets leave out"


@dataclass(frozen=True, kw_only=True)
class Family:
    """What is known of one model type."""

    model_type: str
    """transformers' ``config.model_type``."""
    unsupported: dict[str, str] = field(default_factory=dict)
    """Part that raises for this model type -> why: ``prompts``, ``mlp`` targets of linear deltas, or ``v2``,
    the presets that leave keys and values out."""
    packing: str | None = None
    """Why several records in one row are wrong for this model type; None where they are right."""


def _families() -> list[Family]:
    plain = ["llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "olmo2", "internlm3"]
    plain += ["vit", "dinov2", "clip_vision_model", "siglip_vision_model"]
    without = {
        "mixtral": {"mlp": EXPERTS_3D},
        **{name: {"v2": NO_K_PROJ} for name in ("phi3", "gpt2", "bert", "roberta")},
        **{name: {"prompts": NO_INTERFACE} for name in ("falcon", "bloom", "mpt", "deberta-v2")},
    }
    alibi = ("bloom", "mpt")
    return [Family(model_type=name) for name in plain] + [
        Family(model_type=name, unsupported=parts, packing=ALIBI if name in alibi else None)
        for name, parts in without.items()
    ]


FAMILIES = {family.model_type: family for family in _families()}


def supported(part: str) -> list[str]:
    """Model types that have a place for ``part`` and are run by the tests."""
    return sorted(name for name, family in FAMILIES.items() if part not in family.unsupported)


def text_config(model: nn.Module) -> Any:
    """The config of a model's language part; the whole config where there is no other part."""
    config = getattr(model, "config", None)
    return config.get_text_config() if config is not None and hasattr(config, "get_text_config") else config


def model_type_of(model: nn.Module) -> str:
    """The model type by which the table knows a model: its own, or that of the text model it wraps."""
    config = getattr(model, "config", None)
    own, text = (getattr(candidate, "model_type", None) for candidate in (config, text_config(model)))
    return next((name for name in (own, text) if name in FAMILIES), own) or type(model).__name__


def refuse_prompts(model: nn.Module) -> UserError:
    """The error for a model whose attention cannot carry prompts: says why and what works instead."""
    return UserError(
        f"{type(model).__name__} (model type {model_type_of(model)!r}) cannot carry prompts: {NO_INTERFACE}. "
        f"Use prompt_length=0 with deltas and norms, or a model of one of the types {supported('prompts')}."
    )


def warn_if_untested(model: nn.Module) -> None:
    """Warn if no test runs the model's type."""
    model_type = model_type_of(model)
    if model_type not in FAMILIES:
        warnings.warn(
            f"No test runs model type {model_type!r}; its attention is of a known build, so it is adapted. "
            f"Tested types are {supported('prompts')}.",
            UserWarning,
            stacklevel=2,
        )
