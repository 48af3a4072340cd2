"""Loading: base models, tokenizers and adapters, with errors that say what was found instead.

What is unusual: padding is decided from the tokenizer alone, by the same rule for training and generation,
and never adds a token (that would change the size of the embeddings). Beside every adapter lies a small notes
file that names its prompt template, so that generation asks exactly as training did. This module does not
know training or data.
"""

import copy
import json
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from peft import PeftConfig, PeftModel, TaskType, get_peft_model, get_peft_model_state_dict
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from llama_adapter.errors import UserError
from llama_adapter.file_formats.damage import first_line
from llama_adapter.file_formats.json_file import read_object
from llama_adapter.file_formats.model_folder import (
    check_adapter_files,
    check_model_files,
    check_settings,
    check_tokenizer_files,
)
from llama_adapter.quantization import (
    Quantization,
    QuantizationBackend,
    choose_backend,
    finish_loading,
    quantization_config,
    weight_count,
)
from llama_adapter.vocabulary import check_vocabulary
from llama_adapter.whole_loads import Misfit, not_finite, quiet_reports, refuse

NOTES_NAME = "llama_adapter.json"
_NOTES_FORMAT = 1

_PAD_LIKE = (
    "<pad>",
    "[PAD]",
    "<|pad|>",
    "<|finetune_right_pad_id|>",
    "<|reserved_special_token_0|>",
    "<|endoftext|>",
)
"""Tokens that models ship for padding without declaring them, tried in this order."""


@dataclass(kw_only=True)
class BaseModelConfig:
    """The pretrained model that stays frozen."""

    name_or_path: str
    """Folder of a Hugging Face model, or its name on the hub."""

    dtype: Literal["auto", "float32", "fp32", "bfloat16", "bf16", "float16", "fp16"] = "auto"
    """Precision of the base weights; ``auto`` keeps the one they were saved in. Adapter weights stay in
    float32."""

    quantization: Quantization = "none"
    """Keep the frozen linear maps in fewer bits: ``nf4`` (4), ``int8`` or ``fp8`` (8)."""

    quantization_backend: QuantizationBackend = "auto"
    """Library for it; ``auto``: bitsandbytes for nf4 and on GPUs, else torchao."""

    attn_implementation: str | None = None
    """Attention kernel: ``sdpa``, ``eager``, ``flex_attention``, ``flash_attention_2`` ...; None lets
    transformers choose."""

    revision: str | None = None
    """Branch, tag or commit on the hub."""

    trust_remote_code: bool = False
    """Run model code that comes with the weights. Only for sources you trust."""

    device_map: str | None = None
    """How to spread the weights over devices, for example ``auto``; None loads onto one device."""

    allow_misfit: list[str] = field(default_factory=list)
    """Tensors, by name or pattern such as ``lm_head.*``, that may be missing, unexpected, of another shape or
    not finite in the base's files or an adapter's. Any other stops the program."""

    @property
    def precision(self) -> str:
        """``dtype`` by the name that torch has for it, or ``auto``."""
        return _DTYPES.get(self.dtype, self.dtype)


@dataclass(kw_only=True)
class AdapterNotes:
    """What generation must know about an adapter beyond its weights."""

    template: str | None = None
    """Name of the prompt template it was trained with."""

    base: str | None = None
    """The base model it was trained on."""

    max_length: int | None = None
    """Longest token sequence it was trained on."""


_OTHER_BASE = "This adapter was trained on another base model"
"""How the method begins its warning."""
_MISSHAPEN = re.compile(r"- (\S+): found shape torch\.Size\(\[(.*?)\]\) .* torch\.Size\(\[(.*?)\]\)")
"""A line of PEFT's warning."""
_OF_MISFIT = ("ignore_mismatched_sizes", "missing adapter keys", "does not fit")
"""Parts of warnings that ``refuse`` takes the place of."""

_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def load_base(config: BaseModelConfig) -> PreTrainedModel:
    """Load the base model, frozen, in evaluation mode.

    Raises:
        UserError: When there is no such model, or it is in another format, or a kernel or a quantisation that
            was asked for is not active.
    """
    check_base(config.name_or_path)
    check_model_files(config.name_or_path)
    dtype = config.precision
    backend = _quantization_backend(config)
    try:
        quantised = {} if backend is None else _quantization(config, backend, dtype)
        with quiet_reports():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                config.name_or_path,
                dtype=dtype,
                attn_implementation=config.attn_implementation,
                revision=config.revision,
                trust_remote_code=config.trust_remote_code,
                device_map=config.device_map,
                ignore_mismatched_sizes=True,  # they are named below, all at once
                output_loading_info=True,
                **quantised,
            )
    except Exception as error:  # whatever a library raises at files and settings that do not fit
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"The base model {config.name_or_path!r} could not be loaded: {first_line(error)}. "
            "Set base.name_or_path and the other settings under `base`."
        ) from error
    model, report = loaded
    misfit = Misfit.of_report(report, model)
    refuse(misfit, config.allow_misfit, config.name_or_path, f"the {type(model).__name__} of its config.json")
    _check_attention(model, config)
    if backend is not None:
        remembering: Any = model
        remembering.quantization_report = finish_loading(model, config.quantization, backend)
    model.requires_grad_(False)
    return model.eval()


def load_base_config(config: BaseModelConfig) -> PretrainedConfig:
    """The base model's configuration; nothing else is read.

    Raises:
        UserError: there is none.
    """
    check_base(config.name_or_path)
    check_settings(config.name_or_path)
    try:
        return AutoConfig.from_pretrained(
            config.name_or_path, revision=config.revision, trust_remote_code=config.trust_remote_code
        )
    except Exception as error:  # see load_base
        raise UserError(
            f"The configuration of {config.name_or_path!r} could not be read: {first_line(error)}. "
            "Set base.name_or_path to a model."
        ) from error


def empty_base(config: BaseModelConfig, settings: PretrainedConfig) -> PreTrainedModel:
    """The base model without its weights, on torch's current device.

    Args:
        config: its precision and kernels.
        settings: of ``load_base_config``; they stay as they are.
    """
    model: PreTrainedModel = AutoModelForCausalLM.from_config(
        copy.deepcopy(settings),  # the model writes its precision there
        dtype=config.precision,
        attn_implementation=config.attn_implementation,
        trust_remote_code=config.trust_remote_code,
    )
    return model


def load_tokenizer(config: BaseModelConfig) -> PreTrainedTokenizerBase:
    """Load the tokenizer of the base model, with a pad token.

    Raises:
        UserError: When there is none, or nothing in it can serve for padding.
    """
    check_base(config.name_or_path)
    check_settings(config.name_or_path)
    check_tokenizer_files(config.name_or_path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            config.name_or_path, revision=config.revision, trust_remote_code=config.trust_remote_code
        )
    except BaseException as error:  # a tokenizer's own reader panics, which is no Exception
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise UserError(
            f"The tokenizer of {config.name_or_path!r} could not be loaded: {first_line(error)}. "
            "Add sound tokenizer files (tokenizer.json or tokenizer.model) into the model's folder."
        ) from error
    return ensure_pad_token(tokenizer)


def load_base_and_tokenizer(config: BaseModelConfig) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load both, and see before the weights are read that every token has a row in the embeddings.

    Raises:
        UserError: One of them cannot be loaded, or the tokenizer is larger than the embeddings.
    """
    tokenizer = load_tokenizer(config)
    check_vocabulary(tokenizer, load_base_config(config))
    model = load_base(config)
    check_vocabulary(tokenizer, model)
    return model, tokenizer


def ensure_pad_token(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Give a tokenizer without a pad token one from its own vocabulary; one that has it stays as it is.

    The order is: a token shipped for padding, the unknown token, the end token. Padding is masked and carries
    no label, so sharing a token with another use changes nothing.

    Raises:
        UserError: When the tokenizer has none of these.
    """
    if tokenizer.pad_token is not None:
        return tokenizer
    vocabulary = tokenizer.get_vocab()
    candidates = [token for token in _PAD_LIKE if token in vocabulary]
    candidates += [token for token in (tokenizer.unk_token, tokenizer.eos_token) if token is not None]
    if not candidates:
        raise UserError(
            f"The tokenizer {tokenizer.name_or_path!r} has no pad, unknown or end token. "
            "Set `pad_token` in its tokenizer_config.json to a token that never occurs in text."
        )
    tokenizer.pad_token = candidates[0]
    return tokenizer


def check_base(name_or_path: str) -> None:
    """Look at a local path before transformers does, so that the message names what lies there.

    Raises:
        UserError: When a path does not exist or holds no Hugging Face model.
    """
    folder = Path(name_or_path).expanduser()
    if folder.is_file():
        raise UserError(
            f"The base model {name_or_path!r} is a file. Use the folder that holds it and its config.json."
        )
    if not folder.is_dir():
        if _is_hub_name(name_or_path):
            return
        raise UserError(
            f"The base model folder {name_or_path!r} does not exist. "
            "Use an existing folder, or a hub name such as HuggingFaceTB/SmolLM2-135M-Instruct."
        )
    if all((folder / name).is_file() for name in ("adapter_config.json", "conditioner.safetensors")):
        raise UserError(f"The folder {name_or_path!r} holds no base model. {_what_lies_in(folder)}")
    if not (folder / "config.json").is_file():
        raise UserError(
            f"The folder {name_or_path!r} holds no config.json. {_what_lies_in(folder)} "
            "Use the folder of a Hugging Face model."
        )


def attach_adapter(model: PreTrainedModel, config: PeftConfig, name: str = "default") -> PeftModel:
    """Attach a new adapter to a frozen base model; the config is copied, since PEFT writes into it.

    Raises:
        UserError: When the adapter does not fit the model or would train nothing.
    """
    config = copy.deepcopy(config)
    config.task_type = config.task_type or TaskType.CAUSAL_LM
    try:
        adapted = get_peft_model(model, config, adapter_name=name)
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"The adapter {config.peft_type} does not fit {type(model).__name__}: {first_line(error)}. "
            "Set others under `adapter`."
        ) from error
    if not any(parameter.requires_grad for parameter in adapted.parameters()):
        raise UserError(
            f"The adapter {config.peft_type} has no trainable parameters on {type(model).__name__}. "
            "Choose at least one part (prompts, deltas, norms) under `adapter`."
        )
    return adapted


def load_adapter(
    model: PreTrainedModel,
    dirs: Mapping[str, str | Path],
    trainable: bool = False,
    allow_misfit: Sequence[str] = (),
) -> PeftModel:
    """Load saved adapters onto a base model; the first one is active.

    Args:
        model: The base model.
        dirs: Folder of each adapter, by the name it gets.
        trainable: Whether they can be trained further.
        allow_misfit: Tensors that need not fit, see ``BaseModelConfig``.

    Raises:
        UserError: When a folder holds no adapter, or it does not fit the model.
    """
    if not dirs:
        raise UserError(
            f"No adapter was given ({dict(dirs)}). Use at least one folder that holds an adapter_config.json."
        )
    adapted: PeftModel | None = None
    for name, folder in dirs.items():
        check_adapter(folder)
        adapted = _add_adapter(adapted or model, name, folder, trainable, allow_misfit)
    if adapted is None:
        raise UserError(f"No adapter could be loaded from {list(dirs)}. Use at least one folder.")
    adapted.set_adapter(next(iter(dirs)))
    if trainable:
        return adapted
    adapted.requires_grad_(False)  # set_adapter makes what it activates trainable
    return adapted.eval()


def _add_adapter(
    model: PreTrainedModel | PeftModel,
    name: str,
    folder: str | Path,
    trainable: bool,
    allow_misfit: Sequence[str],
) -> PeftModel:
    """A model with one more adapter, all of whose tensors are those of the file.

    Raises:
        UserError: they are not, or a file is damaged.
    """
    check_adapter_files(folder)
    options: dict[str, Any] = {"is_trainable": trainable, "ignore_mismatched_sizes": True}
    kind, where = type(model).__name__, str(folder)
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            # from_pretrained keeps to itself what load_adapter reports, which may be called again
            adapted = model if isinstance(model, PeftModel) else None
            if adapted is None:
                adapted = PeftModel.from_pretrained(model, where, adapter_name=name, **options)
            report = adapted.load_adapter(where, adapter_name=name, **options)
    except Exception as error:  # whatever PEFT raises at settings and tensors that do not fit
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"The adapter in {where!r} could not be loaded onto {kind}: {first_line(error)}. "
            "Use the base model it was trained on; its README.md names it."
        ) from error
    messages = [str(warning.message) for warning in said]
    found = get_peft_model_state_dict(adapted, adapter_name=name)
    misshapen = _misshapen(messages)
    own = (key for key in report.missing_keys if f".{name}." in f"{key}.")  # PEFT names others' tensors too
    misfit = Misfit(
        missing={key: "is missing" for key in own if key not in misshapen and not _is_shared(key)},
        unexpected=dict.fromkeys(report.unexpected_keys, "is unexpected"),
        misshapen=misshapen,
        not_finite=not_finite(found),
    )
    other = next((text.partition(": ")[2] for text in messages if _OTHER_BASE in text), "")
    base = getattr(adapted.get_base_model(), "name_or_path", "") or kind
    refuse(misfit, allow_misfit, where, f"the base {base!r}", f"{_OTHER_BASE}: {other}" if other else "")
    for warning in said:
        if not any(words in str(warning.message) for words in _OF_MISFIT):
            warnings.warn(warning.message, warning.category, stacklevel=2)
    return adapted


def _misshapen(messages: Iterable[str]) -> dict[str, str]:
    """The tensors of other shapes that PEFT warned of."""
    pairs = (found for text in messages for found in _MISSHAPEN.finditer(text))
    return {
        name: f"has shape ({found}), not ({wanted})"
        for name, found, wanted in (pair.groups() for pair in pairs)
    }


def _is_shared(key: str) -> bool:
    """Whether PEFT keeps a tensor once for all layers, or makes it anew from another; neither is in files."""
    return "vblora_vector_bank" in key or "prompt_encoder" in key


def check_adapter(folder: str | Path) -> None:
    """Check that a folder holds a PEFT adapter.

    Raises:
        UserError: When it does not; names an adapter nearby if there is one.
    """
    path = Path(folder)
    if (path / "adapter_config.json").is_file():
        return
    nearby = sorted(found.parent for found in path.glob("*/adapter_config.json"))
    hint = (
        f"Did you mean {str(nearby[-1])!r}?"
        if nearby
        else "Use the folder that `train` saved (OUTPUT_DIR/adapter)."
    )
    state = "holds no adapter_config.json" if path.is_dir() else "does not exist"
    raise UserError(f"The adapter folder {str(folder)!r} {state}. Use one that does. {hint}")


def write_notes(folder: str | Path, notes: AdapterNotes) -> None:
    """Write the notes file of an adapter."""
    content = {"format": _NOTES_FORMAT, **asdict(notes)}
    (Path(folder) / NOTES_NAME).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_notes(folder: str | Path) -> AdapterNotes:
    """The notes of an adapter; empty ones when it was saved by another program.

    Raises:
        UserError: When the file is damaged, or of a later format.
    """
    path = Path(folder) / NOTES_NAME
    if not path.is_file():
        return AdapterNotes()
    content = read_object(path, "Delete it, or use a copy of the adapter.")
    if content.get("format") != _NOTES_FORMAT:
        raise UserError(
            f"{str(path)!r} has format {content.get('format')!r}, this version reads {_NOTES_FORMAT}. "
            "Install a newer one (`pip install -U llama-adapter`)."
        )
    known = AdapterNotes.__dataclass_fields__
    return AdapterNotes(**{key: value for key, value in content.items() if key in known})


def recorded_base(folder: str | Path) -> str:
    """The base model that an adapter was trained on, as its folder says.

    Raises:
        UserError: it says nothing.
    """
    base = read_notes(folder).base or PeftConfig.from_pretrained(str(folder)).base_model_name_or_path
    if not base:
        raise UserError(
            f"The adapter in {str(folder)!r} does not say which base it was trained on. Add --base FOLDER."
        )
    return str(base)


def parameter_counts(model: nn.Module) -> tuple[int, int]:
    """Numbers of trainable and of all parameters."""
    sizes = [(weight_count(parameter), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, trainable in sizes if trainable), sum(size for size, _ in sizes)


def _quantization_backend(config: BaseModelConfig) -> str | None:
    """The library that quantises; None for a base that stays as it is."""
    if config.quantization == "none":
        return None
    return choose_backend(config.quantization, config.quantization_backend, torch.cuda.is_available())


def _quantization(config: BaseModelConfig, backend: str, dtype: str) -> dict[str, Any]:
    """What ``from_pretrained`` needs to know to quantise."""
    settings = load_base_config(config)
    return {"quantization_config": quantization_config(config.quantization, backend, settings, dtype)}


def _check_attention(model: PreTrainedModel, config: BaseModelConfig) -> None:
    active = getattr(model.config, "_attn_implementation", None)
    if config.attn_implementation is not None and active != config.attn_implementation:
        raise UserError(
            f"attn_implementation={config.attn_implementation!r} was asked for, but {type(model).__name__} "
            f"uses {active!r}. Choose a kernel that this model and machine support, or leave it out."
        )


def _is_hub_name(name: str) -> bool:
    """Whether this could be ``owner/name`` or ``name`` on the hub rather than a path."""
    return not name.startswith((".", "/", "~")) and name.count("/") <= 1 and "\\" not in name


def _what_lies_in(folder: Path) -> str:
    """What a folder without config.json holds, and what to do."""
    if (folder / "adapter_config.json").is_file():
        return "It holds an adapter; give the base model here and the adapter under `--adapter`."
    if any(folder.glob("*.gguf")):
        return (
            "It holds a GGUF file; load it once with from_pretrained(..., gguf_file=...) "
            "and save_pretrained it as a Hugging Face folder."
        )
    if any(folder.glob("consolidated.*.pth")) or (folder / "params.json").is_file():
        return "It holds Meta's own format; convert it with `llama-adapter convert --kind meta-llama`."
    inner = sorted(found.parent.name for found in folder.glob("*/config.json"))
    if inner:
        return f"Did you mean its folder {inner[0]!r}?"
    return "It may be the wrong one."
