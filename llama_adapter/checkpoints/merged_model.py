"""Writes base model plus adapter as one plain model, and checks what was written.

Unusual: the check reloads the saved folder with transformers alone, so it also covers what saving could lose.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from peft import PeftConfig
from rich.console import Console
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from llama_adapter.adapters import ZeroInitConfig
from llama_adapter.checkpoints.merge import MergeConfig
from llama_adapter.checkpoints.writing import new_folder
from llama_adapter.data.saved_template import save_template
from llama_adapter.errors import UserError
from llama_adapter.models import (
    BaseModelConfig,
    check_adapter,
    load_adapter,
    load_base,
    load_tokenizer,
    read_notes,
    write_notes,
)

_SAMPLE = (
    "The museum opens at nine and closes at half past five. On Mondays it is closed; children under twelve "
    "and students pay nothing. How much do two adults and their daughter of ten pay on a Sunday?"
)


def write_merged(config: MergeConfig) -> int:
    """Merge as the settings say.

    Returns:
        The exit code.

    Raises:
        UserError: The adapter has prompts, or the model has no place for what it holds.
    """
    console = Console(soft_wrap=True, highlight=False, markup=False)
    options = _read_options(config)
    settings = BaseModelConfig(
        name_or_path=config.base or options.base_model_name_or_path or "",
        dtype=config.dtype,
        allow_misfit=config.allow_misfit,
    )
    with console.status("Loading"):
        base = _load(settings)
        tokenizer = _tokenizer(settings)
        adapted = load_adapter(base, {"default": config.adapter}, allow_misfit=config.allow_misfit)
    tokens = _sample(tokenizer, base)
    with new_folder(config.output, config.overwrite) as folder:
        with console.status("Merging"):
            wanted = _logits(adapted, tokens)
            merged = adapted.merge_and_unload()
            merged.save_pretrained(folder)
            notes = _take_along(folder, config.adapter, settings, tokenizer)
        with console.status("Checking what was written"):
            difference = float((_logits(_reload(folder, base.dtype), tokens) - wanted).abs().max())
    console.print(f"Folded in: {_parts(options)}.")
    console.print(
        f"Largest logit difference, adapted to reloaded, over {tokens.shape[1]} tokens in {base.dtype}: "
        f"{difference:.2e} (largest logit {float(wanted.abs().max()):.1f})."
    )
    for note in notes:
        console.print(note)
    console.print(
        f"Wrote {config.output}. Try:\n  llama-adapter generate --base {config.output} --prompt ..."
    )
    return 0


def _take_along(
    folder: Path, adapter: str, base: BaseModelConfig, tokenizer: PreTrainedTokenizerBase | None
) -> list[str]:
    """Write tokenizer, template and end tokens into the merged model's folder.

    Returns:
        Sentences on what was written.

    Raises:
        UserError: the adapter's template does not go with the tokenizer.
    """
    trained = read_notes(adapter)
    template = trained.template or read_notes(base.name_or_path).template
    write_notes(folder, replace(trained, template=template, base=None))
    if tokenizer is None:
        return ["The base has no tokenizer, so neither has the merged model."]
    tokenizer.save_pretrained(folder)
    try:
        return save_template(folder, tokenizer, template)
    except UserError as error:
        if template is not None:
            raise
        return [f"No template is recorded, and none fits: {error}"]


def _read_options(config: MergeConfig) -> PeftConfig:
    """The adapter's options.

    Raises:
        UserError: There is no adapter, or it has prompts.
    """
    check_adapter(config.adapter)
    options = PeftConfig.from_pretrained(config.adapter)
    if isinstance(options, ZeroInitConfig) and options.prompt_length:
        raise UserError(
            f"The adapter {config.adapter!r} has {options.prompt_length} prompts per layer, which no weight "
            "expresses: they have a softmax of their own. Use it with `generate --adapter`, "
            "or train with prompt_length 0 and deltas."
        )
    if config.base is None and not options.base_model_name_or_path:
        raise UserError(f"The adapter {config.adapter!r} names no base model. Set --base to its folder.")
    return options


def _load(settings: BaseModelConfig) -> PreTrainedModel:
    """The base model.

    Raises:
        UserError: It is quantised.
    """
    base = load_base(settings)
    if getattr(base.config, "quantization_config", None) is not None:
        raise UserError(
            f"The base model {settings.name_or_path!r} is quantised. Use its unquantised weights to merge."
        )
    return base


def _tokenizer(settings: BaseModelConfig) -> PreTrainedTokenizerBase | None:
    """The base's tokenizer, if it has one."""
    try:
        return load_tokenizer(settings)
    except UserError:
        return None


def _sample(tokenizer: PreTrainedTokenizerBase | None, model: PreTrainedModel) -> Int[Tensor, "1 T"]:
    """Tokens of a real text; without a tokenizer T arbitrary ones."""
    if tokenizer is None:
        vocabulary = model.config.get_text_config().vocab_size
        return torch.arange(64)[None] % vocabulary
    return tokenizer(_SAMPLE, return_tensors="pt")["input_ids"]


@torch.no_grad()
def _logits(model: torch.nn.Module, tokens: Int[Tensor, "1 T"]) -> Float[Tensor, "1 T V"]:
    """Logits over V tokens, in float32."""
    return model(tokens).logits.float()


def _reload(folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    """The saved model, loaded as its users will.

    Raises:
        UserError: Some weights have no place in it, or it lacks some.
    """
    loaded: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, output_loading_info=True)
    model, found = loaded
    lost = sorted({*found["missing_keys"], *found["unexpected_keys"]})
    if lost:
        raise UserError(
            f"{type(model).__name__} does not load {len(lost)} of the merged weights, such as {lost[0]!r}. "
            "Keep the adapter attached."
        )
    return model.eval()


def _parts(options: PeftConfig) -> str:
    """What kinds of parts an adapter has."""
    if not isinstance(options, ZeroInitConfig):
        return f"a {options.peft_type} adapter"
    parts = [delta.kind.replace("_", " ") for delta in options.linear_deltas]
    return ", ".join([*parts, *(["tuned norms"] if options.tuned_norms else [])])
