"""`convert --kind sphinx`: released SPHINX folders <-> folders for ``from_pretrained``.

A released folder has tensor-parallel files ``consolidated.NN-of-MM.model.pth`` with the language model, all
encoders and the projections. The conversion itself is the core's, for any family of models; here is what is
SPHINX's own. Source: docs/sources/llama2-accessory.md#files.
"""

import copy
from collections.abc import Collection
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer
from transformers.core_model_loading import revert_weight_conversion

from llama_adapter.checkpoints.accessory import HABITS, accessory_layout
from llama_adapter.checkpoints.convert import ConvertConfig
from llama_adapter.checkpoints.family import CONSOLIDATED, Family
from llama_adapter.checkpoints.llama_tokenizer import write_tokenizer
from llama_adapter.checkpoints.meta_llama import COMPUTED, dense_tensors
from llama_adapter.checkpoints.mixtral import mixtral_tensors
from llama_adapter.checkpoints.model_export import export_model
from llama_adapter.checkpoints.model_import import import_model
from llama_adapter.checkpoints.stored import Stored
from llama_adapter.errors import UserError
from sphinx_ft.config import SphinxConfig
from sphinx_ft.model import SphinxForConditionalGeneration
from sphinx_ft.official_names import LANGUAGE_MODEL, PREFIX, UNUSED, official_tensors
from sphinx_ft.official_settings import CODE, SETTINGS, official_settings, sphinx_config
from sphinx_ft.processor import SphinxProcessor

_TEMPLATE = "sphinx"


def to_ours(config: ConvertConfig) -> int:
    """Convert a released folder; see ``import_model``."""
    return import_model(config, _family(config))


def to_official(config: ConvertConfig) -> int:
    """Write a released folder; see ``export_model``."""
    return export_model(config, _family(config))


def stored_tensors(config: SphinxConfig, names: Collection[str]) -> list[Stored]:
    """Every tensor of the released files.

    Args:
        config: of the model.
        names: in the files, without their prefix: they show how experts are stored. Without any they are
            stacked, as in the released ones.

    Raises:
        UserError: the weights of some encoders are not in the model's folder.
    """
    elsewhere = [one.name for one in config.encoder_configs if one.elsewhere]
    if elsewhere:
        raise UserError(
            f"The weights of the encoders {elsewhere} are not in the model's folder. Use a model that was "
            "saved before name_encoders."
        )
    text = config.text_config
    if text.model_type == "mixtral":
        layers = range(text.num_hidden_layers)
        language = mixtral_tensors(text, names or [f"layers.{layer}.feed_forward.w1" for layer in layers])
    else:
        language = dense_tensors(text)
    inside = [
        replace(one, weights={LANGUAGE_MODEL + name: shape for name, shape in one.weights.items()})
        for one in language
    ]
    return inside + official_tensors(_shapes(config))


def _shapes(config: SphinxConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of everything but the language model's layers, as ``save_pretrained`` writes them."""
    config = copy.deepcopy(config)
    config.text_config.num_hidden_layers = 0
    with torch.device("meta"):
        model = SphinxForConditionalGeneration(config)
    saved = revert_weight_conversion(model, model.state_dict())
    return {name: tuple(weight.shape) for name, weight in saved.items()}


def _beside(source: Path, folder: Path, config: Any) -> str:
    """Write tokenizer and processor.

    Args:
        source: the released folder.
        folder: of the converted model.
        config: of the model.

    Returns:
        A sentence on what was done.
    """
    if not (source / "tokenizer.model").is_file() and (source / "tokenizer_config.json").is_file():
        tokenizer: Any = AutoTokenizer.from_pretrained(source)
        tokenizer.save_pretrained(folder)
        note = f"Tokenizer: {len(tokenizer)} tokens, as it came."
    else:
        note = write_tokenizer(source, folder)
    if not (folder / "tokenizer_config.json").is_file():
        return f"{note} SphinxProcessor needs them."
    SphinxProcessor(AutoTokenizer.from_pretrained(folder), config, _TEMPLATE).save_pretrained(folder)
    return note


def _family(config: ConvertConfig) -> Family:
    """What the converter must know; on the way back the model's own settings say what files do not."""
    base = config.base or (config.checkpoint if config.reverse else None)
    return Family(
        model_type=SphinxConfig.model_type,
        architecture=SphinxForConditionalGeneration.__name__,
        files=CONSOLIDATED,
        owner="SPHINX",
        settings=(SETTINGS, CODE),
        settings_needed=False,
        config=partial(sphinx_config, variant=config.variant, base=base),
        stored=stored_tensors,
        params=official_settings,
        prefix=PREFIX,
        computed=COMPUTED | UNUSED,
        habits=HABITS,
        layout=accessory_layout,
        beside=_beside,
        hint="sphinx_ft.SphinxForConditionalGeneration.from_pretrained({output!r})",
    )
