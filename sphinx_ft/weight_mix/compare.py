"""Whether models can be mixed: the same tensors, settings and vocabulary. What differs is named."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from llama_adapter.errors import UserError
from sphinx_ft.weight_mix.stored import StoredTensor

_SETTINGS = ("config.json", "adapter_config.json")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
_OF_NO_EFFECT = {
    "_name_or_path",
    "base_model_name_or_path",
    "dtype",
    "inference_mode",
    "name_or_path",
    "revision",
    "torch_dtype",
    "transformers_version",
    "use_cache",
}
"""Settings in which models may differ."""
_NAMED = 5
"""How many differences a message names."""


def check_tensors(folders: Sequence[Path], stored: Sequence[Mapping[str, StoredTensor]]) -> None:
    """Refuse models whose tensors differ in names or shapes.

    Args:
        folders: of the models; the first is compared with every other.
        stored: their tensors.

    Raises:
        UserError: a tensor is missing in one of them, or has another shape.
    """
    first = stored[0]
    for folder, other in zip(folders[1:], stored[1:], strict=True):
        for lacking, names in ((folder, first.keys() - other), (folders[0], other.keys() - first)):
            if names:
                raise UserError(
                    f"{_listed(sorted(names))} {'is' if len(names) == 1 else 'are'} missing in "
                    f"{str(lacking)!r}. Mix models of the same kind."
                )
        differing = [name for name, place in first.items() if place.shape != other[name].shape]
        if differing:
            shapes = [f"{name} {first[name].shape} and {other[name].shape}" for name in differing]
            raise UserError(
                f"{str(folders[0])!r} and {str(folder)!r} differ in shapes: {_listed(shapes, quote=False)}. "
                "Mix models of the same size and vocabulary."
            )


def check_settings(folders: Sequence[Path]) -> None:
    """Refuse models whose configurations differ where it matters.

    Raises:
        UserError: a setting differs.
    """
    for file in _SETTINGS:
        texts = [folder / file for folder in folders]
        if not any(path.is_file() for path in texts):
            continue
        if missing := next((path for path in texts if not path.is_file()), None):
            raise UserError(f"{str(missing)!r} is missing. Use complete folders of the same kind.")
        first, *others = (_settings(path) for path in texts)
        for folder, other in zip(folders[1:], others, strict=True):
            differing = sorted(key for key in first | other if first.get(key) != other.get(key))
            if differing:
                values = [f"{key} {first.get(key)!r} and {other.get(key)!r}" for key in differing]
                raise UserError(
                    f"{file} of {str(folders[0])!r} and {str(folder)!r} differ: "
                    f"{_listed(values, quote=False)}. Mix models that are built alike."
                )


def check_vocabularies(folders: Sequence[Path]) -> None:
    """Refuse models whose tokens have other numbers; folders without tokenizer are passed over.

    Raises:
        UserError: a token has different numbers, or a tokenizer cannot be read.
    """
    having = [folder for folder in folders if any((folder / name).is_file() for name in _TOKENIZERS)]
    vocabularies = [_vocabulary(folder) for folder in having]
    for folder, other in zip(having[1:], vocabularies[1:], strict=True):
        first = vocabularies[0]
        differing = sorted(token for token in first | other if first.get(token) != other.get(token))
        if differing:
            raise UserError(
                f"The tokenizers of {str(having[0])!r} and {str(folder)!r} differ in {len(differing):,} "
                f"tokens: {_listed(differing)}. Mix models with one vocabulary."
            )


def _settings(path: Path) -> dict[str, Any]:
    """A folder's settings, without those of no effect."""
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{str(path)!r} is no JSON ({error}). Use a fresh copy.") from error
    return {key: value for key, value in content.items() if key not in _OF_NO_EFFECT}


def _vocabulary(folder: Path) -> dict[str, int]:
    """Token -> number."""
    try:
        return AutoTokenizer.from_pretrained(folder).get_vocab()
    except (OSError, ValueError, ImportError) as error:
        said = str(error).partition("\n")[0]
        raise UserError(
            f"The tokenizer of {str(folder)!r} cannot be read: {said} Use a fresh copy."
        ) from error


def _listed(names: Sequence[str], quote: bool = True) -> str:
    """The first few, and how many more."""
    shown = ", ".join(repr(name) if quote else name for name in names[:_NAMED])
    return shown + (f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else "")
