"""Settings of a SPHINX model <-> the config.json and meta.json of released folders.

config.json has the language model's sizes, meta.json the name of the code. Encoders and views are nowhere:
they follow from that name. Older folders have neither file; then they are those of a named variant.
Source: docs/sources/llama2-accessory.md#files.
"""

import copy
from typing import Any

from transformers import PreTrainedConfig

from llama_adapter.checkpoints.meta_llama import EMBEDDINGS, dense_config, head_size, inner_rule
from llama_adapter.checkpoints.mixtral import mixtral_config, mixtral_params
from llama_adapter.checkpoints.model_files import OfficialModel
from llama_adapter.errors import UserError
from llama_adapter.models import BaseModelConfig, load_base_config
from sphinx_ft.config import SphinxConfig
from sphinx_ft.variants import VARIANTS, balance, variant_config

SETTINGS, CODE = "config.json", "meta.json"
"""Files: sizes of the language model; which code runs it."""
_RELEASED = {name: variant for name, variant in VARIANTS.items() if variant.llama_type}
_CODE_KEY = "llama_type"
_QUICK_GELU = "load_pretrained_visual_encoder"
_BALANCE = "load_balancing_weight"
_FREE = ("settings", "weights", "name", "dropout")
"""Settings of an encoder that may differ from the released ones: sizes, and what concerns training alone."""


def sphinx_config(official: OfficialModel, variant: str | None, base: str | None) -> SphinxConfig:
    """The settings of a released folder.

    Args:
        official: the folder.
        variant: which released model it is; None for what its meta.json says.
        base: folder with a config.json that says what the released one does not: of a language model, or of
            a SPHINX model with encoders of other sizes.

    Raises:
        UserError: it is not clear which model it is, or the settings contradict each other.
    """
    given = _base_config(base)
    sphinx = given if isinstance(given, SphinxConfig) else None
    name = _variant_name(official, variant, sphinx)
    config = variant_config(name, _text_config(official, name, sphinx.text_config if sphinx else given))
    if sphinx:
        config.encoders, config.views, config.tokens = sphinx.encoders, sphinx.views, sphinx.tokens
        if (code := released_code(config)) != VARIANTS[name].llama_type:
            raise UserError(
                f"The settings in {base!r} are those of a {code}, but the files of a "
                f"{VARIANTS[name].llama_type}. Use the settings of such a model."
            )
    for encoder in config.encoders:
        quick = bool(official.params.get(_QUICK_GELU))
        told = encoder["kind"] == "clip" and _QUICK_GELU in official.params
        if told and quick != encoder["settings"].get("quick_gelu", False):
            encoder["settings"]["quick_gelu"] = quick
    return config


def official_settings(config: SphinxConfig) -> dict[str, dict[str, Any]]:
    """The settings files of a model that never was official.

    Raises:
        UserError: the released code cannot run such a model.
    """
    code, text = released_code(config), config.text_config
    if text.model_type == "mixtral":
        params = mixtral_params(text) | {_BALANCE: text.router_aux_loss_coef * text.num_experts_per_tok}
    else:
        params = _dense_params(text)
    params["max_seq_len"] = text.max_position_embeddings
    params["rope_scaling"] = _rope_scaling(text)
    params[_QUICK_GELU] = any(one["settings"].get("quick_gelu", False) for one in config.encoders)
    return {SETTINGS: params, CODE: {_CODE_KEY: code}}


def released_code(config: SphinxConfig) -> str:
    """What released files call the code that runs a model; sizes may be any.

    Raises:
        UserError: none does.
    """
    ours = _built_in(config)
    for name, variant in _RELEASED.items():
        if _built_in(variant_config(name)) == ours:
            return variant.llama_type
    raise UserError(
        f"No released code runs a model with {ours}. Use language model, encoders, views and tokens of a "
        f"released variant ({', '.join(_RELEASED)}), and keep others as save_pretrained writes them."
    )


def _built_in(config: SphinxConfig) -> dict[str, Any]:
    """The settings that released code leaves no choice about."""
    encoders = [{key: one[key] for key in one if key not in _FREE} for one in config.encoders]
    return {
        "language model": config.text_config.model_type,
        "encoders": encoders,
        "views": config.views,
        "tokens": config.tokens,
        "image_places": config.image_places,
    }


def _variant_name(official: OfficialModel, variant: str | None, described: SphinxConfig | None) -> str:
    """Which released model a folder holds: as its settings say, the caller, or the settings beside it.

    Raises:
        UserError: nothing says so, or the folder says something else than the caller.
    """
    code = official.settings.get(CODE, {}).get(_CODE_KEY)
    source, names = str(official.paths[0].parent), ", ".join(_RELEASED)
    if variant is not None and variant not in _RELEASED:
        raise UserError(f"variant is {variant!r}, of which no files were released. Use one of: {names}.")
    if variant is not None:
        if code not in (None, VARIANTS[variant].llama_type):
            raise UserError(
                f"variant is {variant!r}, a {VARIANTS[variant].llama_type}, but {CODE} in {source!r} says "
                f"{code!r}. Leave --variant out, or use the folder of that model."
            )
        return variant
    if code is None and described is not None:
        code = released_code(described)
    if code is None:
        raise UserError(
            f"{source!r} has no {CODE} that names the model. Name it: --variant, one of: {names}."
        )
    fitting = [name for name, one in _RELEASED.items() if one.llama_type == code]
    if not fitting:
        raise UserError(
            f"{CODE} in {source!r} says {_CODE_KEY} {code!r}, which is no released SPHINX. "
            f"Use a folder of one of: {', '.join(one.llama_type for one in _RELEASED.values())}."
        )
    return fitting[0]


def _base_config(base: str | None) -> PreTrainedConfig | None:
    """The settings in the folder that ``--base`` names."""
    if base is None:
        return None
    return load_base_config(BaseModelConfig(name_or_path=base))


def _text_config(official: OfficialModel, name: str, given: PreTrainedConfig | None) -> PreTrainedConfig:
    """Settings of the language model: what the folder says, or else the caller, or else the variant."""
    usual = variant_config(name).text_config
    config: Any = copy.deepcopy(given) or usual
    if "dim" in official.params:
        config = (mixtral_config if usual.model_type == "mixtral" else dense_config)(official)
    elif config.model_type != usual.model_type:
        raise UserError(
            f"The settings of --base are those of a {config.model_type!r} model, but the language model of "
            f"{name} is a {usual.model_type!r}. Use the folder of such a model."
        )
    else:
        config.vocab_size = official.rows(EMBEDDINGS, config.hidden_size)
    config.pad_token_id = usual.pad_token_id
    if config.model_type == "mixtral":
        balance(config, official.params.get(_BALANCE, VARIANTS[name].balance))
    return config


def _dense_params(text: Any) -> dict[str, Any]:
    """Sizes of a LLaMA, as Accessory's code takes them.

    Raises:
        UserError: the code cannot have such sizes.
    """
    if head_size(text) * text.num_attention_heads != text.hidden_size or text.tie_word_embeddings:
        raise UserError(
            f"The language model has {text.num_attention_heads} heads of {head_size(text)} for a hidden size "
            f"of {text.hidden_size}, and tie_word_embeddings={text.tie_word_embeddings}; in the released "
            "code heads fill the hidden size, and the output has embeddings of its own. Use such a model."
        )
    return {
        "dim": text.hidden_size,
        "n_layers": text.num_hidden_layers,
        "n_heads": text.num_attention_heads,
        "n_kv_heads": text.num_key_value_heads,
        "vocab_size": text.vocab_size,
        **inner_rule(text.hidden_size, text.intermediate_size),
        "norm_eps": text.rms_norm_eps,
        "rope_theta": text.rope_parameters["rope_theta"],
    }


def _rope_scaling(text: Any) -> float | None:
    """Accessory multiplies positions, transformers divides them.

    Raises:
        UserError: the scaling is of a kind that the code does not have.
    """
    rope = text.rope_parameters
    if rope["rope_type"] not in ("default", "linear"):
        raise UserError(
            f"The language model has rotary scaling of the type {rope['rope_type']!r}, which the released "
            "code does not have. Use a model without it, or with 'linear'."
        )
    return 1 / rope["factor"] if rope["rope_type"] == "linear" else None
